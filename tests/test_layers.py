import warnings

import pytest
from torch import nn
from torch.nn.utils import parametrize, prune

from skcompress.layers import transposed_groups, weight_matrices
from tests.pruning_modules import Attention, Encoder, Recurrent, Tied


def test_weight_matrices():
    """Weights of layers are; biases, norms and embeddings are not."""
    module = nn.Sequential(
        nn.Linear(2, 3), nn.BatchNorm1d(3), nn.LayerNorm(3), nn.Conv1d(1, 2, 3),
        nn.ConvTranspose2d(1, 2, 3), nn.Embedding(4, 2), nn.PReLU(3), nn.GRUCell(2, 3),
        nn.Bilinear(2, 2, 2), nn.GroupNorm(1, 2),
    )  # fmt: skip
    assert list(weight_matrices(module)) == [
        "0.weight", "3.weight", "4.weight", "7.weight_ih", "7.weight_hh",
    ]  # fmt: skip


def test_recurrent():
    """Every layer and direction counts, in both of its weights."""
    module = Recurrent("lstm", layers=2, bidirectional=True)
    names = [n for n in weight_matrices(module) if n.startswith("layer.")]
    assert names == [
        f"layer.weight_{part}_l{layer}{direction}"
        for layer in (0, 1) for direction in ("", "_reverse") for part in ("ih", "hh")
    ]  # fmt: skip


def test_projected_lstm():
    """The projection of an LSTM is a weight matrix as well."""
    assert "weight_hr_l0" in weight_matrices(nn.LSTM(3, 4, proj_size=2))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, ["in_proj_weight", "out_proj.weight"]),
        (
            {"kdim": 3, "vdim": 5},
            ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"],
        ),
    ],
    ids=["one width", "three widths"],
)
def test_attention(params, expected):
    """Whatever form the projections have."""
    assert list(weight_matrices(nn.MultiheadAttention(4, 2, **params))) == expected


def test_attention_inside():
    """Layers are found at any depth, positions and embeddings are not among them."""
    names = list(weight_matrices(Encoder()))
    assert "encoder.layers.0.self_attn.in_proj_weight" in names
    assert not any("embed" in name or "norm" in name or "positions" in name for name in names)
    assert "attention.out_proj.weight" in weight_matrices(Attention())


def test_shared_weights_count_once():
    """Under their first name; and not at all if an embedding shares them."""
    assert list(weight_matrices(Tied())) == ["embed.weight", "first.weight", "head.weight"]
    module = nn.Sequential(nn.Linear(3, 4), nn.Embedding(5, 4), nn.Linear(4, 5))
    module[2].weight = module[1].weight
    assert list(weight_matrices(module)) == ["0.weight"]


def test_subclasses_count():
    """A layer of the user's own that inherits is prunable."""

    class Own(nn.Linear):
        pass

    assert list(weight_matrices(nn.Sequential(Own(2, 3)))) == ["0.weight"]


def weight_norm(layer, name="weight"):
    """Apply the old weight normalization, about which torch warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(layer, name)


COMPUTED = {
    "weight_norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)),
                    r"The weight of the layer '1' .*remove_parametrizations\(layer, 'weight'\)"),
    "spectral_norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Conv1d(2, 3, 1)),
                      r"remove_parametrizations\(layer, 'weight'\)"),
    "orthogonal": (lambda: nn.utils.parametrizations.orthogonal(nn.GRU(2, 3), "weight_hh_l0"),
                   r"The weight_hh_l0 of .*remove_parametrizations\(layer, 'weight_hh_l0'\)"),
    "old weight_norm": (lambda: weight_norm(nn.Linear(2, 3)),
                        r"The weight of the layer '1'.*remove_weight_norm\(layer, 'weight'\)"),
    "old weight_norm, recurrent": (lambda: weight_norm(nn.LSTM(2, 3), "weight_ih_l0"),
                                   r"remove_weight_norm\(layer, 'weight_ih_l0'\)"),
    "old spectral_norm": (lambda: nn.utils.spectral_norm(nn.Linear(2, 3)),
                          r"remove_spectral_norm\(layer, 'weight'\)"),
    "prune": (lambda: prune.l1_unstructured(nn.Linear(2, 3), "weight", 0.5),
              r"prune.remove\(layer, 'weight'\)"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), COMPUTED.values(), ids=COMPUTED)
def test_computed_weights(make, message):
    """A weight that is computed before each forward pass is refused, with what gives it back."""
    with pytest.raises(ValueError, match=message):
        weight_matrices(nn.Sequential(nn.Linear(2, 2), make()))


def test_computed_biases_and_embeddings():
    """What is not prunable may be computed."""
    bias = prune.l1_unstructured(nn.Linear(2, 3), "bias", 0.3)
    table = nn.utils.parametrizations.spectral_norm(nn.Embedding(4, 2))
    assert list(weight_matrices(nn.Sequential(bias, table))) == ["0.weight"]


@pytest.mark.parametrize("remove", [
    lambda: parametrize.remove_parametrizations(COMPUTED["weight_norm"][0](), "weight"),
    lambda: nn.utils.remove_weight_norm(weight_norm(nn.Linear(2, 3))),
    lambda: nn.utils.remove_spectral_norm(COMPUTED["old spectral_norm"][0]()),
    lambda: prune.remove(COMPUTED["prune"][0](), "weight"),
])  # fmt: skip
def test_the_advice_works(remove):
    """What the errors say gives a plain weight."""
    assert list(weight_matrices(remove())) == ["weight"]


def test_transposed_groups():
    """Transposed convolutions are the ones whose inputs come first."""
    module = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Conv2d(6, 6, 3, groups=3), nn.Linear(2, 3),
        nn.ConvTranspose1d(4, 6, 3),
    )  # fmt: skip
    assert transposed_groups(module) == {"0.weight": 2, "3.weight": 1}


def test_nothing_prunable():
    """The error says what was found, and what is prunable."""
    module = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU())
    match = "no layer to prune or quantize; found BatchNorm1d, ReLU, Sequential.*of Linear, Conv"
    with pytest.raises(ValueError, match=match):
        weight_matrices(module)
