import pytest
from torch import nn

from skcompress.layers import weight_matrices
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


def test_nothing_prunable():
    """The error says what was found, and what is prunable."""
    module = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU())
    match = "no layer to prune or quantize; found BatchNorm1d, ReLU, Sequential.*of Linear, Conv"
    with pytest.raises(ValueError, match=match):
        weight_matrices(module)
