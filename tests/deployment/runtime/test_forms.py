"""Which forms a net has: those whose name is true of it."""

import numpy as np
import onnx
import pytest
from torch import nn

from skcompress import PrunedNet, deploy
from tests.pruning_modules import classification, classifier


class Recurrent(nn.Module):
    """A layer that onnxruntime has no integers for, and a linear one in double precision."""

    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(2, 3, batch_first=True)

    def forward(self, X):
        return self.layer(X.unflatten(1, (3, 2)))[0][:, -1]


class Convolutions(nn.Sequential):
    """Nothing that is linear."""

    def __init__(self):
        super().__init__(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten())
        self.extend([nn.Unflatten(1, (3, 4)), nn.AdaptiveAvgPool1d(1), nn.Flatten()])


def integers(deployed):
    """Count matrices of 8-bit integers in a graph."""
    graph = onnx.load_from_string(deployed.content.model).graph
    kinds = onnx.TensorProto.INT8, onnx.TensorProto.UINT8
    return sum(t.data_type in kinds and len(t.dims) > 1 for t in graph.initializer)


@pytest.mark.parametrize(
    ("module", "form", "there"),
    [
        (Recurrent, "int8 dynamic", False),
        (Recurrent, "int8 static", False),
        (Convolutions, "int8 dynamic", False),
        (Convolutions, "int8 static", True),
    ],
)
def test_forms_in_integers_have_integers(module, form, there):
    """A form without any is said to be none of the net's."""
    X, y = classification(60)
    pruned = PrunedNet(classifier(module), random_state=0, retrain_epochs=1).fit(X, y)
    settings = {"batch_sizes": [1], "n_repeats": 1, "tolerance": 1.0}
    if there:
        assert integers(deploy(pruned, X, forms=[form], **settings)) > 0
        return
    with pytest.raises(ValueError, match=f"{form}: the net has no layer for it"):
        deploy(pruned, X, forms=[form], **settings)
    deployed = deploy(pruned, X, **settings)
    assert f"Left out: {form}, since the net has no layer for it." in deployed.message_
    np.testing.assert_array_equal(deployed.predict(X), pruned.predict(X))
