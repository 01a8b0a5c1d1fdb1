"""Seeds and threads: given to the inside, given back to the outside."""

import random

import numpy as np
import pytest
import torch

from skcompress.training.isolation import draw_seed, isolated, seed_generators, stage_seed


def draw():
    """Draw a number from each global generator."""
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_isolated_gives_back_the_generators():
    """What is drawn inside is not missing outside, also after an error."""
    seed_generators(0)
    expected = draw(), draw()
    seed_generators(0)
    with isolated():
        draw()
    first = draw()
    with pytest.raises(RuntimeError, match="inside"):
        seed_and_raise()
    assert (first, draw()) == expected


@isolated()
def seed_and_raise():
    """Disturb the generators, and fail."""
    seed_generators(9)
    raise RuntimeError("inside")


@pytest.mark.parametrize(("n_threads", "inside"), [(2, 2), (None, 1)])
def test_isolated_sets_threads(n_threads, inside):
    """The number of threads is set inside and restored outside; None leaves it alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with isolated(n_threads):
        assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_seed_generators():
    """One seed fixes all three generators."""
    with isolated():
        seed_generators(3)
        first = draw()
        seed_generators(3)
        assert draw() == first
        seed_generators(4)
        assert not set(draw()) & set(first)


def test_draw_seed():
    """An integer is its own seed; a RandomState and numpy's generator are drawn from."""
    assert draw_seed(7) == draw_seed(np.int64(7)) == 7
    rng = np.random.RandomState(0)
    assert draw_seed(rng) != draw_seed(rng)
    assert draw_seed(np.random.RandomState(0)) == draw_seed(np.random.RandomState(0))
    with isolated():
        seed_generators(1)
        first = draw_seed(None)
        seed_generators(1)
        assert draw_seed(None) == first
        assert draw_seed(None) != first


def test_stage_seed():
    """Stages and seeds give seeds of their own, the same on every machine."""
    seeds = {stage_seed(seed, stage) for seed in range(20) for stage in ("dense", "prune")}
    assert len(seeds) == 40
    assert stage_seed(0, "dense") == 425966876


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_isolated_gives_back_the_gpus_generators():
    """Each GPU's generator is restored as well."""
    before = torch.cuda.get_rng_state()
    with isolated():
        seed_generators(3)
        torch.rand(3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)
