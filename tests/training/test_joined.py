"""Parameters as one vector, and back; that steps come out the same is tested with the steps."""

import pytest
import torch
from torch import nn, optim

from skcompress.training import joined as joined_module
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


@pytest.mark.parametrize("large", [0, 10, 100])
@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_the_optimizer_goes_on_afterwards(kind, large, monkeypatch):
    """What it remembers is divided, so that ordinary steps continue joined ones."""
    monkeypatch.setattr(joined_module, "LARGE", large)
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


def test_parameters_stay_what_and_where_they_are():
    """They keep their memory, and between steps the optimizer shows them to whoever looks."""
    params = parameters()
    optimizer = optim.SGD(params, lr=1.0)
    places, values = [p.data_ptr() for p in params], [p.detach().clone() for p in params]
    with joined(optimizer) as vectors:
        set_gradients(params, 0)
        vectors.step()
        assert all(map(torch.Tensor.is_set_to, optimizer.param_groups[0]["params"], params))
        assert [p.data_ptr() for p in params] == places
        for parameter, value in zip(params, values, strict=True):
            assert torch.equal(parameter, value - parameter.grad)


def shared():
    """Return two parameters in the same memory."""
    first, *others = parameters()
    return [first, nn.Parameter(first.detach()), *others]


def hooked(params):
    """Return an optimizer that halves its parameters after each step."""
    optimizer = optim.SGD(params, lr=0.1)

    def halve(optimizer, args, kwargs):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.data /= 2 * parameter.detach().norm()

    optimizer.register_step_post_hook(halve)
    return optimizer


def used(params):
    """Return an optimizer that remembers an earlier step."""
    optimizer = optim.Adam(params, lr=0.1)
    step(params, optimizer, 9)
    return optimizer


@pytest.mark.parametrize(
    ("make", "optimize"),
    [(shared, lambda params: optim.SGD(params, lr=0.1)), (parameters, hooked), (parameters, used)],
    ids=["shared memory", "hook", "used"],
)
def test_what_cannot_be_joined(make, optimize):
    """Parameters that are changed twice, seen by a hook or remembered already go one by one."""
    apart, alone = make(), make()
    ordinary, optimizer = optimize(apart), optimize(alone)
    with joined(optimizer) as vectors:
        assert not vectors._vectors
        for seed in range(3):
            step(apart, ordinary, seed)
            set_gradients(alone, seed)
            vectors.step()
    for pair in zip(apart, alone, strict=True):
        assert torch.equal(*pair)


def test_a_step_that_fails():
    """The optimizer shows its parameters again."""
    params = parameters()
    optimizer = optim.SGD(params, lr=0.1)

    def fail():
        raise RuntimeError("stop here")

    optimizer.step = fail
    set_gradients(params, 0)
    with joined(optimizer) as vectors, pytest.raises(RuntimeError, match="stop here"):
        vectors.step()
    assert all(map(torch.Tensor.is_set_to, optimizer.param_groups[0]["params"], params))


def test_half_precision_is_left_alone():
    """Only float32 and float64 are joined, and parameters of one type."""
    params = [nn.Parameter(torch.ones(3, dtype=d)) for d in (torch.float32, torch.float64)]
    for group in (params, [p.half() for p in params]):
        assert not _can_join({"params": group})
    assert _can_join({"params": params[:1]})
