import pytest
from sklearn.frozen import FrozenEstimator

from skcompress import PrunedNet, QuantizedNet
from skcompress.quantization.refusals import REFUSALS
from tests.contract_modules import Classifier as Never
from tests.contract_modules import NeverTrained, Regressor, blobs, classifier, regressor

X, Y = blobs(30)

CASES = {
    "a net with compile=True": ({}, {"compile": True}),
    "bits that the format does not come in": ({"format": "affine", "bits": 1}, {}),
    "bits='auto' without exactly one of max_bytes and max_loss": ({"bits": "auto"}, {}),
    "max_bytes or max_loss with a number of bits": ({"max_bytes": 100}, {}),
    "format='codebook' with a granularity other than 'tensor'": (
        {"format": "codebook", "granularity": "channel"}, {},
    ),
    "scale with another format than 'symmetric'": ({"format": "affine", "scale": 0.1}, {}),
    "scale with a granularity": ({"scale": 0.1, "granularity": "channel"}, {}),
    "activations with a format without integers": (
        {"format": "codebook", "activations": "static"}, {},
    ),
    "activations with 16 bits": ({"bits": 16, "activations": "dynamic"}, {}),
    "activations with groups": ({"granularity": 4, "activations": "dynamic"}, {}),
    "distill_temperature without distill": ({"distill_temperature": 2.0}, {}),
    "distill without retrain_epochs": ({"distill": 0.5}, {}),
    "retrain_lr without retrain_epochs": ({"retrain_lr": 0.1}, {}),
}  # fmt: skip


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.combination)
def test_every_refusal(refusal):
    """Each is raised with its own message, before any training."""
    if refusal.combination == "a net that is quantized already":
        estimator = QuantizedNet(QuantizedNet(classifier(Never)))
    elif refusal.combination == "distill_temperature with a regressor":
        parameters = {"retrain_epochs": 1, "distill": 0.5, "distill_temperature": 2.0}
        estimator = QuantizedNet(regressor(Regressor), **parameters)
    else:
        parameters, settings = CASES[refusal.combination]
        estimator = QuantizedNet(classifier(Never, **settings), **parameters)
    assert issubclass(Never, NeverTrained)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared in full
        estimator.fit(X, Y)
    assert str(error.value) == refusal.message


def test_rounding_twice_is_refused_at_any_depth():
    """Also where something stands between, or the inner one is frozen."""
    inner = QuantizedNet(classifier(), random_state=0).fit(X, Y)
    for estimator in (QuantizedNet(FrozenEstimator(inner)), PrunedNet(FrozenEstimator(inner)),
                      PrunedNet(QuantizedNet(classifier(Never)))):  # fmt: skip
        with pytest.raises(ValueError, match="quantized"):
            estimator.fit(X, Y)


BAD = {
    "bits": 9, "format": "float", "granularity": 1, "scale": 0.0, "rounding": "up",
    "activations": "int8", "batch_norm": "drop", "retrain_epochs": -1, "retrain_lr": 0.0,
    "max_bytes": 0, "max_loss": -1.0, "distill": 1.1, "distill_temperature": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_values_out_of_range(name):
    """The error names the parameter, what was got and what would work."""
    with pytest.raises(ValueError, match=f"'{name}' parameter of QuantizedNet must be .* Got"):
        QuantizedNet(classifier(Never), **{name: BAD[name]}).fit(X, Y)
