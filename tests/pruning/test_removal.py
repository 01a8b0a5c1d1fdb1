import copy
import pickle

import pytest
import torch
from torch import nn

from skcompress.pruning.granularity import weights_left
from skcompress.pruning.removal import remove_units
from tests.pruning_modules import (
    MODULES,
    Attention,
    ConvNet,
    Encoder,
    NormalizedMLP,
    Recurrent,
    Tied,
    build,
    n_weights,
    rows,
)
from tests.pruning_units import mask, random_choice, shapes_of, units_of


def pruned(module, *inputs, sparsity=0.5, seed=0):
    """Return the masked module and the smaller one, which must compute the same."""
    units = units_of(module, *inputs)
    masks, alive = random_choice(module, units, sparsity, seed=seed)
    expected = weights_left(units, alive, shapes_of(module))
    masked = mask(copy.deepcopy(module), masks)
    smaller = copy.deepcopy(masked)
    remove_units(smaller, units, alive)
    assert n_weights(smaller) == expected < n_weights(module)
    return masked, smaller


def same_outputs(first, second, *inputs):
    """Compare what two modules compute."""
    with torch.no_grad():
        torch.testing.assert_close(first(*inputs), second(*inputs), rtol=1e-10, atol=1e-10)


def train_step(module, X):
    """Let an optimizer move every weight once."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=0.1)
    module(X).square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in module.parameters())
    optimizer.step()
    return module.eval()


@pytest.mark.parametrize("name", MODULES)
def test_the_smaller_module_computes_what_the_masked_one_computes(name):
    """Removed for real, pickled, copied, trained on, and pruned once more."""
    module, X = build(name), rows(name)
    masked, smaller = pruned(module, X)
    same_outputs(smaller, masked, X)
    with torch.no_grad():
        assert not torch.allclose(masked(X), module(X)), "the mask must matter"
    for copied in (pickle.loads(pickle.dumps(smaller)), copy.deepcopy(smaller)):
        same_outputs(copied, masked, X)
    train_step(smaller, X)
    masked_again, smallest = pruned(smaller, X, sparsity=0.3, seed=1)
    same_outputs(smallest, masked_again, X)


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm", "attention"])
@pytest.mark.parametrize("seed", range(3))
def test_in_training_mode_too(name, seed):
    """Batch statistics are those of the masked module as well."""
    module, X = build(name, seed), rows(name)
    masked, smaller = pruned(module, X, seed=seed)
    masked.train(), smaller.train()
    torch.testing.assert_close(masked(X), smaller(X), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["mlp", "lstm, h_n"])
def test_nothing_goes_at_sparsity_zero(name):
    """All units alive leave every tensor as it is."""
    module, X = build(name), rows(name)
    units = units_of(module, X)
    before = copy.deepcopy(module.state_dict())
    assert remove_units(module, units, torch.ones(units.n_units, dtype=torch.bool)) == {}
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_masks_say_what_stays():
    """Each smaller tensor is the part of the old one under its mask."""
    module, X = build("cnn"), rows("cnn")
    units = units_of(module, X)
    _, alive = random_choice(module, units)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    masks = remove_units(module, units, alive)
    assert masks
    for name, tensor in module.state_dict().items():
        if name in masks:
            assert masks[name].shape == before[name].shape
            assert torch.equal(before[name][masks[name]], tensor.flatten())
        else:
            assert torch.equal(before[name], tensor)


def test_parameters_stay_parameters():
    """Frozen weights stay frozen, buffers stay buffers."""
    module, X = NormalizedMLP(), rows("mlp").float()
    module.layers[0].weight.requires_grad_(False)
    units = units_of(module, X)
    remove_units(module, units, random_choice(module, units)[1])
    assert not module.layers[0].weight.requires_grad
    assert module.layers[4].weight.requires_grad
    assert {name for name, _ in module.named_buffers()} == {
        f"layers.{i}.{n}" for i in (1, 5) for n in ("running_mean", "running_var",
                                                   "num_batches_tracked")
    }  # fmt: skip


def shrunk(module, X):
    """Remove units of a module in place."""
    units = units_of(module, X)
    remove_units(module, units, random_choice(module, units, scope="layer")[1])
    return module


class TestWidths:
    """The attributes of a layer agree with its tensors."""

    def test_linear_and_norm(self):
        layers = shrunk(NormalizedMLP(hidden=8), torch.rand(2, 6)).layers
        assert (layers[0].in_features, layers[0].out_features) == (6, 4)
        assert layers[1].num_features == layers[2].num_parameters == 4
        assert (layers[4].in_features, layers[4].out_features) == (4, 4)
        assert layers[5].num_features == 4
        assert layers[6].num_parameters == 1
        assert (layers[7].in_features, layers[7].out_features) == (4, 3)

    def test_convolutions(self):
        module = shrunk(ConvNet(), torch.rand(2, 1, 8, 8))
        for layer in (module.stem, module.inner, module.outer, module.pointwise):
            assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels)
        depthwise = module.depthwise
        assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == 3
        assert depthwise.weight.shape[:2] == (3, 1)
        assert module.norm.num_features == module.stem.out_channels == 3

    def test_transposed_convolution(self):
        module = shrunk(MODULES["cnn, transposed"][0](), torch.rand(2, 1, 8, 8))
        layer = module.decode
        assert layer.weight.shape[:2] == (layer.in_channels, layer.out_channels)
        assert layer.in_channels == module.encode.out_channels == 3
        assert layer.out_channels == module.head.in_channels < 5

    @pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
    def test_recurrent(self, kind):
        module = shrunk(
            Recurrent(kind, hidden=6, layers=2, bidirectional=True), torch.rand(2, 5, 4)
        )
        assert (module.layer.input_size, module.layer.hidden_size) == (4, 3)
        assert module.head.in_features == 6
        gates = {"rnn": 1, "gru": 3, "lstm": 4}[kind]
        for suffix in ("l0", "l0_reverse", "l1", "l1_reverse"):
            width = 4 if suffix.startswith("l0") else 6
            assert getattr(module.layer, f"weight_ih_{suffix}").shape == (3 * gates, width)
            assert getattr(module.layer, f"weight_hh_{suffix}").shape == (3 * gates, 3)
            assert getattr(module.layer, f"bias_hh_{suffix}").shape == (3 * gates,)

    def test_attention(self):
        layer = shrunk(Attention(), torch.rand(2, 5, 4)).attention
        assert (layer.num_heads, layer.head_dim) == (2, 2)
        assert layer.in_proj_weight.shape == (12, 4)
        assert layer.embed_dim == 4
        assert layer.out_proj.weight.shape == (4, 4)
        assert layer.out_proj.in_features == layer.out_proj.out_features == 4

    def test_encoder(self):
        module = shrunk(Encoder(), torch.randint(1, 7, (2, 5)))
        layer = module.encoder.layers[0]
        assert layer.self_attn.num_heads == 2
        assert (layer.linear1.out_features, layer.linear2.in_features) == (6, 6)
        assert module.positions.shape == (1, 5, 8)  # the residual stream stays

    def test_shared(self):
        module = shrunk(Tied(), torch.rand(2, 6))
        assert module.second.weight is module.first.weight
        for layer in (module.first, module.second):
            assert (layer.out_features, layer.in_features) == layer.weight.shape == (4, 4)
        assert isinstance(module.first.weight, nn.Parameter)


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_of_which_only_the_outputs_go(batch_first):
    """Torch's fused attention, which takes the width for granted, is not used any more."""

    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 1, batch_first=batch_first)
            self.head = nn.Linear(4, 2)

        def forward(self, X):
            return self.head(self.attention(X, X, X)[0])

    torch.manual_seed(0)
    module, X = Projected().double().eval(), torch.rand(3, 5, 4).double()
    masked, smaller = pruned(module, X)
    assert smaller.attention.out_proj.out_features == 2
    assert smaller.attention.num_heads == 1
    same_outputs(smaller, masked, X)


def test_attention_of_widths_of_its_own():
    """Where keys and values have other widths, the heads stay and the outputs may go."""

    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=3, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, X):
            return self.head(self.attention(X, X[..., :3], X[..., :3])[0])

    torch.manual_seed(0)
    module, X = Cross().double().eval(), torch.rand(3, 5, 4).double()
    masked, smaller = pruned(module, X)
    assert smaller.attention.out_proj.weight.shape == (2, 4)
    assert smaller.attention.q_proj_weight.shape == (4, 4)
    same_outputs(smaller, masked, X)
    units = units_of(module, X)
    assert "kdim" in units.stays["attention.k_proj_weight"]
