"""Hidden units of recurrent layers: which stay, and which go together."""

import pytest
import torch
from torch import nn

from tests.pruning_modules import build, rows
from tests.pruning_units import assert_removable, random_choice, units_of

STEPS = torch.randn(4, 5, 3, dtype=torch.float64)


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
