"""Exactly n of every m inputs stay."""

import pytest
import torch

from skcompress.pruning.budgets import n_of_m
from tests.pruning.test_budgets import magnitudes
from tests.pruning_modules import MODULES, build


class TestTwoOfFour:
    """Exactly n of every m inputs."""

    @pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8)])
    @pytest.mark.parametrize("shape", [(3, 16), (5, 8, 3), (2, 8, 3, 3), (4, 19)])
    def test_exactly_n_of_m(self, n, m, shape):
        score = torch.rand(shape)
        mask = n_of_m({"a": score}, n, m)["a"]
        full = shape[1] // m * m
        groups = mask[:, :full].unflatten(1, (-1, m))
        assert (groups.sum(2) == n).all()
        assert mask[:, full:].all(), "an incomplete group is dense"
        kept = score[:, :full].unflatten(1, (-1, m))
        lowest_kept = kept.masked_fill(~groups, torch.inf).amin(2)
        highest_gone = kept.masked_fill(groups, -torch.inf).amax(2)
        assert (lowest_kept >= highest_gone).all()

    def test_convolutions_group_input_channels(self):
        """The four neighbours of a weight are at the same place of the kernel."""
        score = torch.zeros(1, 4, 2, 1)
        score[0, :, 0, 0] = torch.tensor([4.0, 1.0, 3.0, 2.0])
        score[0, :, 1, 0] = torch.tensor([1.0, 4.0, 2.0, 3.0])
        mask = n_of_m({"a": score}, 2, 4)["a"]
        assert mask[0, :, 0, 0].tolist() == [True, False, True, False]
        assert mask[0, :, 1, 0].tolist() == [False, True, False, True]

    def test_ties_keep_the_first(self):
        assert n_of_m({"a": torch.ones(1, 4)}, 2, 4)["a"].tolist() == [[True, True, False, False]]

    @pytest.mark.parametrize("name", MODULES)
    def test_every_module(self, name):
        masks = n_of_m(magnitudes(build(name)), 2, 4)
        for mask in masks.values():
            assert int((~mask).sum()) == mask.numel() // mask.shape[1] * (mask.shape[1] // 4 * 2)

    @pytest.mark.parametrize("seed", range(3))
    def test_progress(self, seed):
        """Part of the way, the worst go; nothing comes back; the end is exact."""
        generator = torch.Generator().manual_seed(seed)
        scores = {n: torch.rand(s, generator=generator) for n, s in (("a", (6, 8)), ("b", (5, 9)))}
        masks = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
        going = 6 * 4 + 5 * 4
        for progress in (0.0, 0.3, 0.5, 0.9, 1.0):
            noise = {n: torch.rand(s.shape, generator=generator) for n, s in scores.items()}
            left = {n: noise[n].masked_fill(~masks[n], -1) for n in scores}
            chosen = n_of_m(left, 2, 4, progress)
            assert all((chosen[n] <= masks[n]).all() for n in scores)
            assert sum(int((~mask).sum()) for mask in chosen.values()) == round(going * progress)
            masks = chosen
        assert (masks["a"].unflatten(1, (2, 4)).sum(2) == 2).all()

    def test_nothing_to_remove(self):
        match = r"No weight has 4 inputs or more, so 2:4 sparsity removes nothing.*\(9, 3\)"
        with pytest.raises(ValueError, match=match):
            n_of_m({"a": torch.rand(9, 3), "b": torch.rand(9, 1, 3, 3)}, 2, 4)
