import copy

import pytest
import torch
from torch import nn

from skcompress.pruning.removal import remove_units
from skcompress.pruning.rules import MOVES, RULES
from tests.pruning_modules import Attention, build, mask, random_choice, rows, units_of


class Forward(nn.Module):
    """Two linear layers, and whatever `between` does."""

    def __init__(self, between, hidden=8, width=None, **tensors):
        super().__init__()
        self.between = between
        self.first = nn.Linear(3, hidden)
        self.last = nn.Linear(width or hidden, 2)
        for name, tensor in tensors.items():
            setattr(self, name, nn.Parameter(tensor))

    def forward(self, X):
        return self.last(self.between(self, self.first(X)))


def assert_removable(module, *inputs, n_units=None, seeds=range(3), **named):
    """Remove random units; the smaller module must compute what the masked one computes."""
    module = module.double().eval()
    units = units_of(module, *inputs, **named)
    if n_units is not None:
        assert units.n_units == n_units
    for seed in seeds:
        masks, alive = random_choice(module, units, seed=seed)
        masked = mask(copy.deepcopy(module), masks)
        smaller = copy.deepcopy(masked)
        assert remove_units(smaller, units, alive)
        with torch.no_grad():
            torch.testing.assert_close(
                smaller(*inputs, **named), masked(*inputs, **named), rtol=1e-9, atol=1e-9
            )
    return units


X = torch.randn(4, 3, dtype=torch.float64)
STEPS = torch.randn(4, 5, 3, dtype=torch.float64)


class TestOwnClasses:
    """Classes that the library has never heard of."""

    def test_branching_residual(self):
        """Two blocks of different depth that join one stream, squeezed and excited."""

        class Block(nn.Module):
            def __init__(self, width, inner):
                super().__init__()
                self.wide = nn.Conv2d(width, inner, 3, padding=1)
                self.norm = nn.BatchNorm2d(inner)
                self.narrow = nn.Conv2d(inner, width, 1, bias=False)
                self.gate = nn.Linear(width, width)

            def forward(self, x):
                y = self.narrow(torch.relu(self.norm(self.wide(x))))
                return x + y * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Conv2d(2, 6, 3)
                self.left, self.right = Block(6, 4), Block(6, 5)
                self.skip = nn.Conv2d(2, 6, 3)
                self.head = nn.Linear(12, 3)

            def forward(self, x):
                stream = torch.relu(self.stem(x))
                joined = torch.cat([self.left(stream), self.right(stream) - self.skip(x)], 1)
                return self.head(joined.flatten(2).amax(-1))

        torch.manual_seed(0)
        units = assert_removable(Net(), torch.randn(3, 2, 6, 6).double(), n_units=6 + 4 + 5)
        assert set(units.stays) == {"head.weight"}
        stream = units.slots["stem.weight", 0].tolist()
        for name in ("skip.weight", "left.narrow.weight", "right.gate.weight"):
            assert units.slots[name, 0].tolist() == stream
        assert units.slots["head.weight", 1].tolist() == stream * 2

    def test_recurrent(self):
        """Steps written out by hand, with a gate of its own and a layer of torch's on top."""

        class Cell(nn.Module):
            def __init__(self):
                super().__init__()
                self.enter, self.leave = nn.Linear(3, 6), nn.Linear(6, 6, bias=False)
                self.gate = nn.Linear(9, 6)
                self.gru = nn.GRU(6, 4, batch_first=True)
                self.head = nn.Linear(4, 2)

            def forward(self, x):
                state, states = torch.tanh(self.enter(x[:, 0])), []
                for step in x.unbind(1):
                    new = torch.tanh(self.enter(step) + self.leave(state))
                    keep = torch.sigmoid(self.gate(torch.cat([step, state], -1)))
                    state = keep * state + (1 - keep) * new
                    states.append(state)
                _, last = self.gru(torch.stack(states, 1))
                return self.head(last[0])

        torch.manual_seed(0)
        units = assert_removable(Cell(), STEPS, n_units=6 + 4)
        assert units.slots["gate.weight", 1].tolist() == [-1] * 3 + list(range(6))

    def test_attention_pooling(self):
        """Steps weighted by a score of their own: the score stays, the hidden units can go."""

        class Pooled(nn.Module):
            def __init__(self):
                super().__init__()
                self.gru = nn.GRU(3, 6, batch_first=True, bidirectional=True)
                self.score, self.head = nn.Linear(12, 1), nn.Linear(12, 2)

            def forward(self, x):
                states, _ = self.gru(x)
                weights = self.score(torch.tanh(states)).softmax(1)
                return self.head((weights * states).sum(1))

        units = assert_removable(Pooled(), STEPS, n_units=12)
        assert "to all units of a layer alike" in units.stays["score.weight"]

    def test_cross_attention(self):
        """Heads whose query is not their key stay, and the reason is not that nobody uses them."""

        class Query(nn.Module):
            def __init__(self):
                super().__init__()
                self.inputs, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
                self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
                self.query = nn.Parameter(torch.randn(1, 1, 8))

            def forward(self, X):
                X, query = self.inputs(X), self.query.expand(len(X), -1, -1)
                return self.last(self.attention(query, X, X, need_weights=False)[0][:, 0])

        units = units_of(Query(), torch.rand(2, 5, 6))
        assert "parts of it" in units.stays["attention.in_proj_weight"]

    def test_layer_with_a_parameter_of_its_own(self):
        """What a weight that is not prunable reads, no mask could silence; what it gives can go."""

        class Own(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(3, 6), nn.Linear(5, 4)
                self.matrix = nn.Parameter(torch.randn(5, 6))
                self.head = nn.Linear(4, 2)

            def forward(self, x):
                x = nn.functional.linear(torch.relu(self.first(x)), self.matrix)
                return self.head(self.second(x))

        units = assert_removable(Own(), X, n_units=4)
        assert units.stays["first.weight"] == "'matrix', which is not prunable, reads it"

    def test_head_tied_to_an_embedding(self):
        """The weight of an embedding is not prunable, as a head neither."""

        class Language(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = nn.Embedding(7, 4)
                self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 4)

            def forward(self, x):
                x = self.second(torch.relu(self.first(self.embed(x).mean(1))))
                return nn.functional.linear(x, self.embed.weight)

        units = assert_removable(Language(), torch.randint(0, 7, (4, 5)), n_units=6)
        assert units.stays == {"second.weight": "'embed.weight', which is not prunable, reads it"}

    def test_several_inputs_and_outputs(self):
        """Inputs by name; both outputs stay, what is between can go."""

        class Both(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(3, 5), nn.Linear(2, 5)
                self.left, self.right = nn.Linear(5, 2), nn.Linear(5, 1)

            def forward(self, table, other):
                joined = torch.maximum(self.a(table), self.b(other))
                return self.left(joined), self.right(joined).squeeze(-1)

        named = {"other": torch.rand(4, 2).double(), "table": X}
        units = assert_removable(Both(), n_units=5, **named)
        assert set(units.stays) == {"left.weight", "right.weight"}


PASSING = {
    "scale": (lambda m, x: x * m.p, 8, {"p": torch.randn(8)}),
    "scale of two dimensions": (lambda m, x: x * m.p, 8, {"p": torch.randn(1, 8)}),
    "scale through a view": (lambda m, x: x * m.p.view(1, -1), 8, {"p": torch.randn(8)}),
    "one scale for all": (lambda m, x: x * m.p, 8, {"p": torch.randn(1)}),
    "number": (lambda m, x: 2 ** (1 - 3 * x), 8, {}),
    "power of units": (lambda m, x: (x.abs() + 1) ** torch.sigmoid(x), 8, {}),
    "clamped by units": (lambda m, x: torch.clamp(x, max=2 * x), 8, {}),
    "where": (lambda m, x: torch.where(torch.ones(8, dtype=torch.bool)[0], x, -x), 8, {}),
    "gated by chunks": (lambda m, x: (lambda a, b: a * b.sigmoid())(*x.chunk(2, -1)), 4, {}),
    "view by len": (lambda m, x: x.view(len(x), -1), 8, {}),
    "written out": (lambda m, x: torch.stack([row * 2 for row in x]), 8, {}),
    "reversed": (lambda m, x: x.flip(-1), 8, {}),
    "repeated": (lambda m, x: (lambda a, b: a * b)(*x.repeat(1, 2).chunk(2, -1)), 8, {}),
    "picked rows": (lambda m, x: x[torch.tensor([1, 0, 1, 1])], 8, {}),
    "softmax over rows": (lambda m, x: torch.softmax(x, dim=0, dtype=torch.float64), 8, {}),
    "in place": (lambda m, x: x.clone().mul_(2).add_(x), 8, {}),
    "constant": (lambda m, x: x * torch.tensor(3.0), 8, {}),
    "detached": (lambda m, x: x + x.detach(), 8, {}),
}


@pytest.mark.parametrize("name", PASSING)
def test_units_pass(name):
    """Operations through which every unit of the layer before can be removed."""
    between, width, tensors = PASSING[name]
    torch.manual_seed(0)
    # Gating in halves couples each unit of the first half with one of the second.
    assert_removable(Forward(between, width=width, **tensors), X, n_units=width)


@pytest.mark.parametrize("name", sorted({*RULES, *MOVES}))
def test_rules_are_for_operations_that_exist(name):
    """A rule for a name that torch does not have would never be used."""
    assert hasattr(torch.ops.aten, name)


PINNING = {
    "softmax over units": (lambda m, x: x.softmax(-1), "passes through softmax"),
    "mean over units": (lambda m, x: x - x.mean(-1, keepdim=True), "passes through mean"),
    "norm": (lambda m, x: x / x.norm(dim=-1, keepdim=True), "passes through linalg_vector_norm"),
    "cumulative": (lambda m, x: x.cumsum(-1), "passes through cumsum"),
    "layer norm": (lambda m, x: nn.functional.layer_norm(x, (8,)), "passes through layer_norm"),
    "constant for each": (lambda m, x: x * torch.arange(8.0), "mul joins it with something that"),
    "joined with the input": (
        lambda m, x: x + torch.cat([X, X, X[:, :2]], 1)[: len(x)], "add joins it with something",
    ),
    "times a matrix": (lambda m, x: x @ torch.eye(8, dtype=x.dtype), "passes through matmul"),
    "rolled": (lambda m, x: x.roll(3, -1), "passes through roll"),
    "mixed by a view": (lambda m, x: x.t().reshape(len(x), 8), "mixed with other dimensions"),
    "pooled without channels": (
        lambda m, x: nn.functional.avg_pool1d(x, 3, stride=1, padding=1), "avg_pool1d",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PINNING)
def test_units_stay(name):
    """Operations that need all units; the error gives the reason for each layer."""
    between, reason = PINNING[name]
    module = Forward(between).double()
    with pytest.raises(ValueError, match="No unit of Forward can be removed: ") as error:
        units_of(module, X[:2])
    message = str(error.value)
    assert "'first.weight' stays because" in message
    assert reason in message
    assert "'last.weight' stays because it is an output of the module" in message
    assert message.endswith("Use granularity='weight'.")


class TestRecurrentReasons:
    """Recurrent layers whose hidden units stay."""

    @pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
    def test_outputs(self, kind):
        layer = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind](3, 4, batch_first=True)
        with pytest.raises(ValueError, match="'weight_hh_l0' stays because it is an output"):
            units_of(layer, STEPS[:2].float())

    def test_cells(self):
        """Cells are operations of their own, which are not taken apart."""

        class Steps(nn.Module):
            def __init__(self):
                super().__init__()
                self.cell, self.head = nn.GRUCell(3, 4), nn.Linear(4, 2)

            def forward(self, x):
                state = self.cell(x[:, 0])
                return self.head(self.cell(x[:, 1], state))

        with pytest.raises(ValueError, match=r"'cell.weight_ih' stays because .* gru_cell"):
            units_of(Steps(), STEPS[:2].float())

    def test_projection(self):
        layer = nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 6, proj_size=2, batch_first=True))
        with pytest.raises(ValueError, match=r"'0.weight' stays because it passes through lstm"):
            units_of(layer, STEPS[:2].float())
        with pytest.raises(ValueError, match=r"weight_hr_l0' stays because it is used by lstm"):
            units_of(layer, STEPS[:2].float())

    def test_residual_layers_are_tied(self):
        """Layers and directions lose units apart from each other, or not at all."""

        class Residual(nn.Module):
            def __init__(self):
                super().__init__()
                self.first = nn.GRU(3, 4, batch_first=True)
                self.second, self.head = nn.GRU(4, 4, batch_first=True), nn.Linear(4, 2)

            def forward(self, x):
                x = self.first(x)[0]
                return self.head((x + self.second(x)[0])[:, -1])

        with pytest.raises(ValueError, match="tied to those of another recurrent layer"):
            units_of(Residual(), STEPS[:2].float())

    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    def test_encoder_and_decoder(self, kind):
        """A decoder that starts from the encoder's state needs all of it."""

        class Translate(nn.Module):
            def __init__(self):
                super().__init__()
                kinds = {"lstm": nn.LSTM, "gru": nn.GRU}
                self.encoder = kinds[kind](3, 4, batch_first=True)
                self.decoder = kinds[kind](3, 4, batch_first=True)
                self.head = nn.Linear(4, 2)

            def forward(self, x):
                return self.head(self.decoder(x, self.encoder(x)[1])[0][:, -1])

        with pytest.raises(ValueError, match="initial state") as error:
            units_of(Translate(), STEPS[:2].float())
        assert "'encoder.weight_hh_l0' stays because a recurrent layer is given" in str(error.value)
        assert "'decoder.weight_hh_l0' stays because a recurrent layer is given" in str(error.value)

    def test_learned_state(self):
        """A parameter as initial state is not sliced."""

        class Started(nn.Module):
            def __init__(self):
                super().__init__()
                self.state = nn.Parameter(torch.ones(1, 1, 4))
                self.gru, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

            def forward(self, x):
                state = self.state.expand(-1, x.size(0), -1).contiguous()
                return self.head(self.gru(x, state)[1][0])

        with pytest.raises(ValueError, match="is given its initial state"):
            units_of(Started(), STEPS[:2].float())


class TestRecurrentSiblings:
    """Layers and directions of a recurrent module lose equally many units."""

    def test_each_layer_and_direction(self):
        units = units_of(build("lstm, bidirectional"), rows("lstm"))
        (parts,) = units.siblings
        assert parts.tolist() == torch.arange(20).view(4, 5).tolist()

    @pytest.mark.parametrize("seed", range(5))
    def test_any_choice_keeps_as_many(self, seed):
        module, X = build("lstm, h_n"), rows("lstm")
        units = units_of(module, X)
        _, alive = random_choice(module, units, seed=seed)
        (parts,) = units.siblings
        assert alive[parts].sum(1).unique().tolist() == [alive.sum() // 4]

    def test_one_layer_applied_to_two_inputs(self):
        """A shared recurrent layer is one set of units."""

        class Siamese(nn.Module):
            def __init__(self):
                super().__init__()
                self.gru, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(8, 2)

            def forward(self, x):
                pair = [self.gru(part)[1][0] for part in (x, x.flip(1))]
                return self.head(torch.cat(pair, -1))

        units = assert_removable(Siamese(), STEPS, n_units=4)
        assert units.slots["head.weight", 1].tolist() == [0, 1, 2, 3] * 2

    def test_directions_that_are_added(self):
        """Forward and backward units that are summed leave in pairs."""

        class Summed(nn.Module):
            def __init__(self):
                super().__init__()
                self.gru = nn.GRU(3, 4, batch_first=True, bidirectional=True)
                self.head = nn.Linear(4, 2)

            def forward(self, x):
                last = self.gru(x)[1]
                return self.head(last[0] + last[1])

        units = assert_removable(Summed(), STEPS, n_units=4)
        assert units.siblings[0].tolist() == [[0, 1, 2, 3]] * 2


class TestSlots:
    """What stands where."""

    def test_gates_stand_one_block_after_the_other(self):
        units = units_of(build("gru"), rows("gru"))
        for slot in (("layer.weight_ih_l0", 0), ("layer.weight_hh_l0", 0), ("layer.bias_hh_l0", 0)):
            assert units.slots[slot].tolist() == list(range(5)) * 3
        assert units.slots["layer.weight_hh_l0", 1].tolist() == list(range(5))
        assert ("layer.weight_ih_l0", 1) not in units.slots  # inputs of the module

    def test_heads(self):
        units = units_of(Attention(), STEPS.new_zeros(2, 5, 4).float())
        heads = units.slots["attention.in_proj_weight", 0].view(3, 4, 2)
        assert (heads == heads[0, :, :1]).all()
        assert units.slots["attention.out_proj.weight", 1].tolist() == heads[0].flatten().tolist()
        assert ("attention.out_proj.weight", 1) in units.consumers

    def test_channels_in_a_flattened_image(self):
        units = units_of(build("cnn"), rows("cnn"))
        columns = units.slots["head.weight", 1].view(7, 4)
        assert (columns == columns[:, :1]).all()
        assert len(columns[:, 0].unique()) == 7

    def test_consumers_read_and_producers_do_not(self):
        units = units_of(build("mlp"), rows("mlp"))
        assert units.consumers == {("second.weight", 1), ("last.weight", 1)}
        assert list(units.layers) == ["first.weight", "second.weight"]
        assert units.layers["second.weight"].tolist() == list(range(8, 16))

    def test_tied_weights_count_once(self):
        units = units_of(build("tied"), rows("tied"))
        assert units.n_units == 8
        assert not any(name.startswith("second.weight") for name, _ in units.slots)
        assert units.slots["second.bias", 0].tolist() == units.slots["first.bias", 0].tolist()
