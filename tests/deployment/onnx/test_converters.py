"""register_converters: nets in skl2onnx, which knows them only after that call."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
import skl2onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skcompress import DistilledNet, PrunedNet, QuantizedNet, register_converters
from tests.deployment.onnx.helpers import agree, frozen, run
from tests.pruning_modules import MLP, classification, classifier, regression, regressor

NAMES = np.array(["ant", "bee", "cat"])
TYPES = [("X", FloatTensorType([None, 6]))]


@pytest.fixture(autouse=True)
def _registered():
    register_converters()


def nets():
    """Return an unfitted net of each class."""
    student = DistilledNet(classifier(), teacher=LogisticRegression(), random_state=0)
    quantized = QuantizedNet(classifier(), bits=2, random_state=0)
    return {
        "pruned": PrunedNet(classifier(), random_state=0), "quantized": quantized,
        "student": student, "skorch": classifier(),
    }  # fmt: skip


@pytest.mark.parametrize("options", [None, {"zipmap": False}])
@pytest.mark.parametrize("name", nets())
def test_every_class_is_converted(name, options):
    """With the opset that was asked for, also where there is nothing else in the graph."""
    X, y = classification()
    net = nets()[name].fit(X, y)
    model = skl2onnx.convert_sklearn(net, initial_types=TYPES, target_opset=21, options=options)
    assert {o.domain: o.version for o in model.opset_import} == {"": 21}
    agree(model, net, X, atol=1e-6)
    pipeline = make_pipeline(StandardScaler(), nets()[name]).fit(X, y)
    model = skl2onnx.to_onnx(pipeline, X[:2], target_opset=21, options=options)
    agree(model, pipeline, X, atol=1e-5)


@pytest.mark.parametrize("voting", ["soft", "hard"])
def test_nets_vote(voting):
    """Each has names of its own in the graph."""
    X, y = classification()
    members = list(nets().items())
    voters = VotingClassifier(members, voting=voting, flatten_transform=False).fit(X, NAMES[y])
    options = {id(voters): {"zipmap": False}}
    model = skl2onnx.to_onnx(voters, X[:2], target_opset=21, options=options)
    out = run(model, X)
    np.testing.assert_array_equal(out["label"], voters.predict(X))
    if voting == "soft":
        expected = voters.predict_proba(X)
        np.testing.assert_allclose(out["probabilities"], expected, rtol=0, atol=1e-5)


def test_regressors_are_averaged():
    """Their predictions are a vector."""
    X, y = regression()
    net = regressor(MLP, module__n_outputs=1)
    members = [("a", PrunedNet(net, random_state=0)), ("b", QuantizedNet(net, random_state=0))]
    voters = VotingRegressor(members).fit(X, y)
    (out,) = run(skl2onnx.to_onnx(voters, X[:2], target_opset=21), X).values()
    np.testing.assert_allclose(out.ravel(), voters.predict(X), rtol=0, atol=1e-5)


def test_a_plain_net_of_images_takes_the_shape_of_its_input():
    """Which its first layer does not tell."""
    X = np.random.default_rng(0).normal(size=(4, 1, 5, 5)).astype(np.float32)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 3))
    net = classifier(module).initialize()
    types = [("X", FloatTensorType([None, 1, 5, 5]))]
    model = skl2onnx.convert_sklearn(net, initial_types=types, target_opset=21)
    agree(model, net, X, atol=1e-6)


def test_an_older_opset_is_refused():
    """It lacks 4-bit integers, among others."""
    X, y = classification()
    net = QuantizedNet(classifier(), bits=4, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"opset 21; got target_opset=17\. Pass"):
        skl2onnx.convert_sklearn(net, initial_types=TYPES, target_opset=17)


def test_integers_are_stored_in_four_bits():
    """The fewest that opset 21 has."""
    estimator, X, y = frozen("mlp")
    net = QuantizedNet(estimator, bits=2, random_state=0).fit(X, y)
    types = [("X", FloatTensorType([None, X.shape[1]]))]
    model = skl2onnx.convert_sklearn(net, initial_types=types, target_opset=21)
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.INT4 in kinds
    assert onnx.TensorProto.INT2 not in kinds


FRESH = """
import numpy, skl2onnx, tempfile
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skcompress import QuantizedNet, deploy, export_onnx, register_converters
from tests.pruning_modules import classification, classifier

X, y = classification()
net = QuantizedNet(classifier(), bits=4, random_state=0)
pipeline = make_pipeline(StandardScaler(), net).fit(X, y)

def outputs():
    model = skl2onnx.to_onnx(pipeline, X[:2], target_opset=21)
    return [output.name for output in model.graph.output]

def unknown():
    try:
        outputs()
    except RuntimeError as error:  # skl2onnx names what it does not know
        return "QuantizedNet" in str(error)

assert unknown()
with tempfile.TemporaryDirectory() as folder:
    export_onnx(pipeline, folder + "/net.onnx")
deploy(pipeline, X, n_repeats=1)
assert unknown()
register_converters()
assert outputs() == ["labels", "probabilities"]
deploy(pipeline, X, n_repeats=1)
assert outputs() == ["labels", "probabilities"]
print("agreed")
"""


def test_nothing_else_teaches_skl2onnx(tmp_path):
    """Neither an export nor a deployment changes what it does with nets."""
    command = [sys.executable, "-c", FRESH]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout == "agreed\n", result.stderr


def test_a_missing_package_is_named(monkeypatch):
    """With the extra that brings it."""
    monkeypatch.setitem(sys.modules, "skcompress.deployment.onnx.converters", None)
    with pytest.raises(ImportError, match=r"pip install 'skcompress\[onnx\]'"):
        register_converters()
