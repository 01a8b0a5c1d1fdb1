"""Encoders of plain nets that compute by nested tensors are refused wherever padding is told."""

import numpy as np
import pytest
import torch

from skcompress import deploy, export_onnx, load, save
from skcompress.deployment.padded_rows import refuse_nested_tensors
from tests.deployment.padded import PaddedEncoder, sentences
from tests.pruning_modules import classifier

X, Y = sentences()
WHOLE = X[:, :2]


def fitted(**settings):
    """Return a plain net."""
    torch.manual_seed(0)
    module = {f"module__{name}": value for name, value in settings.items()}
    return classifier(PaddedEncoder, max_epochs=1, **module).fit(X, Y)


# Every row has words before its end, a few of which are the padding of another net.
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("padding", [0, 1, 9])
@pytest.mark.parametrize("rows", [X, WHOLE], ids=["padded", "whole"])
def test_whatever_stands_for_padding(padding, rows, tmp_path):
    """Also if the rows at hand have none."""
    net = fitted(padding=padding)
    for write, kind in ((save, "file"), (export_onnx, "graph")):
        with pytest.raises(ValueError, match=f"which a {kind} cannot hold. Build it with enable"):
            write(net, tmp_path / "net", rows)
    with pytest.raises(ValueError, match="Build it with enable_nested_tensor=False"):
        deploy(net, rows)
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize("settings", [{"padding": None}, {"nested": False}], ids=str)
def test_encoders_that_use_none(settings, tmp_path):
    """Without a mask there is nothing to cut short."""
    net = fitted(**settings)
    save(net, tmp_path / "net.skc", X)
    expected = net.predict_proba(X)
    np.testing.assert_allclose(load(tmp_path / "net.skc").predict_proba(X), expected, atol=1e-6)
    deployed = deploy(net, X, forms=["fp32"], n_repeats=1)
    np.testing.assert_allclose(deployed.predict_proba(X), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_mask_by_its_position():
    """It need not be named; and a run that fails is one that was told."""
    encoder = PaddedEncoder().eval().encoder
    words, mask = torch.zeros(2, 3, 8), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="TransformerEncoder in TransformerEncoder computes"):
        refuse_nested_tensors(encoder, lambda: encoder(words, None, mask), "file")
    refuse_nested_tensors(encoder, lambda: encoder(words, mask[0, 0].repeat(3, 3)), "file")
    assert not encoder._forward_pre_hooks
