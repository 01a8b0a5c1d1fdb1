"""Removable units in classes that the library has never heard of."""

import torch
from torch import nn

from tests.pruning_units import assert_removable, units_of

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
