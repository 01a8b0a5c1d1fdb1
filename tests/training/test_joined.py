"""Parameters as one vector, and back; that steps come out the same is tested with the steps."""

import pytest
import torch
from torch import nn, optim

from skcompress.training.joined import ELEMENTWISE, _can_join, joined


def parameters():
    """Return parameters of several shapes, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 5), (7,), (1,))]


def step(params, optimizer, seed):
    """Make an ordinary step."""
    set_gradients(params, seed)
    optimizer.step()


def set_gradients(params, seed):
    """Give all parameters gradients."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in params:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_the_optimizer_goes_on_afterwards(kind):
    """What it remembers is divided, so that ordinary steps continue joined ones."""
    settings = {"lr": 0.1, "weight_decay": 0.01}
    if kind is optim.SGD:
        settings["momentum"] = 0.9
    apart, together = parameters(), parameters()
    ordinary, optimizer = kind(apart, **settings), kind(together, **settings)
    with joined(optimizer) as vectors:
        for seed in range(3):
            step(apart, ordinary, seed)
            set_gradients(together, seed)
            vectors.step()
    for params, each in ((apart, ordinary), (together, optimizer)):
        step(params, each, 3)
    for pair in zip(apart, together, strict=True):
        assert torch.equal(*pair)


def test_parameters_begin_where_tensors_do():
    """Joined parameters begin at multiples of 64 bytes from the first."""
    params = [nn.Parameter(torch.full((n,), float(n))) for n in (1, 17, 5)]
    with joined(optim.SGD(params)) as parameters:
        places = [p.data_ptr() - params[0].data_ptr() for p in params]
        assert places == [0, 64, 192]
        assert [p[0].item() for p in params] == [1, 17, 5]
        assert len(parameters.optimizer.param_groups[0]["params"]) == 1


def test_half_precision_is_left_alone():
    """Only float32 and float64 are joined, and parameters of one type."""
    params = [nn.Parameter(torch.ones(3, dtype=d)) for d in (torch.float32, torch.float64)]
    for group in (params, [p.half() for p in params]):
        assert not _can_join({"params": group})
    assert _can_join({"params": params[:1]})
