import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from skcompress.layers import weight_matrices
from skcompress.quantization import FORMATS, quantize
from skcompress.quantization.straight_through import StraightThrough, set_weights
from skcompress.training.loop import Data, retrain
from tests.pruning_modules import MLP, classification, classifier


def problem(format="symmetric", bits=3, **settings):
    """Return a net, its rows, and its weights quantized, of which some are masked."""
    X, y = classification()
    net = classifier(MLP, max_epochs=5, **settings).fit(X, y)
    quantized = {}
    for name, weight in weight_matrices(net.module_).items():
        mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.7
        weight.data *= mask
        quantized[name] = quantize(weight, bits=bits, format=format, mask=mask)
    return net, Data(X, y), quantized


@pytest.mark.parametrize("format", FORMATS)
def test_weights_are_always_on_their_levels(format):
    """Before every step and after the last; masked ones are zero."""
    net, data, quantized = problem(format)
    hook = StraightThrough(net, quantized)
    weights = weight_matrices(net.module_)

    def check(progress):
        hook(progress)
        for name, tensor in hook.result().items():
            assert torch.equal(weights[name], tensor.dequantize())
            assert (weights[name][~tensor.mask] == 0).all()

    retrain(net, data, epochs=2, lr=0.1, after_step=check)


def test_it_is_the_straight_through_estimator():
    """By hand: gradients at the rounded weights move the weights behind them."""
    net, data, quantized = problem(batch_size=-1)
    behind = {n: w.detach().clone() for n, w in weight_matrices(net.module_).items()}
    reference = copy.deepcopy(net.module_)
    hook = StraightThrough(net, quantized)
    retrain(net, data, epochs=3, lr=0.1, rate=lambda progress: 1.0, after_step=hook)
    X, y = torch.from_numpy(data.X), torch.from_numpy(data.y)
    for _ in range(3):
        for name, weight in weight_matrices(reference).items():
            rounded = quantized[name].grid.round(behind[name]) * quantized[name].mask
            weight.data.copy_(rounded)
        reference.zero_grad()
        nn.functional.cross_entropy(reference(X), y).backward()
        for name, parameter in reference.named_parameters():
            target = behind.get(name, parameter.data)
            target -= 0.1 * parameter.grad
    for name, tensor in hook.result().items():
        expected = tensor.grid.round(behind[name]) * tensor.mask
        torch.testing.assert_close(tensor.dequantize(), expected)
    for name, bias in net.module_.named_parameters():
        if name not in behind:
            torch.testing.assert_close(bias, reference.get_parameter(name))


def test_it_starts_from_the_codes_that_it_is_given():
    """Also where reconstruction chose other levels than the nearest."""
    net, _, nearest = problem()
    quantized = {}
    for name, weight in weight_matrices(net.module_).items():
        moment = torch.eye(weight.shape[1]).double() + 5
        quantized[name] = quantize(weight, bits=3, mask=nearest[name].mask, moment=moment)
    assert any((q.codes != nearest[name].codes).any() for name, q in quantized.items())
    hook = StraightThrough(net, quantized)
    for name, tensor in hook.result().items():
        assert torch.equal(tensor.codes, quantized[name].codes)


def test_weights_move_though_their_codes_do_not_yet():
    """Steps too small to reach the next level add up."""
    net, data, quantized = problem(bits=2, batch_size=-1)
    hook = StraightThrough(net, quantized)
    retrain(net, data, epochs=200, lr=0.01, rate=lambda progress: 1.0, after_step=hook)
    changed = [(hook.result()[n].codes != q.codes).sum().item() for n, q in quantized.items()]
    assert sum(changed) > 0


def test_centres_move_and_codes_stay():
    """The centre is the mean of what the optimizer made of the weights that share it."""
    net, data, quantized = problem("codebook", batch_size=-1)
    weights = weight_matrices(net.module_)
    hook = StraightThrough(net, quantized)
    moved = {}

    def keep(progress):
        moved.update({n: w.detach().clone() for n, w in weights.items()})
        hook(progress)

    retrain(net, data, epochs=1, lr=0.5, after_step=keep)
    for name, tensor in hook.result().items():
        assert torch.equal(tensor.codes, quantized[name].codes)
        assert not torch.equal(tensor.grid.levels, quantized[name].grid.levels)
        for code, centre in enumerate(tensor.grid.levels):
            members = (tensor.codes == code) & tensor.mask
            if members.any():
                torch.testing.assert_close(centre, moved[name][members].mean())


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.3, "momentum": 0.9}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_centres_train_as_parameters(name):
    """An optimizer of the centres themselves makes the same steps.

    Their gradients are sums, divided by the sizes of the clusters.
    """
    optimizer, settings = OPTIMIZERS[name]
    named = {f"optimizer__{key}": value for key, value in settings.items()}
    net, data, quantized = problem("codebook", batch_size=-1, optimizer=optimizer, **named)
    reference = copy.deepcopy(net.module_)
    centres = {n: nn.Parameter(q.grid.levels.clone()) for n, q in quantized.items()}
    rest = {n: p for n, p in reference.named_parameters() if n not in centres}
    theirs = optimizer([*centres.values(), *rest.values()], **settings)
    hook = StraightThrough(net, quantized)
    with hook.shared_gradients():
        retrain(net, data, epochs=4, lr=None, rate=lambda progress: 1.0, after_step=hook)
    X, y = torch.from_numpy(data.X), torch.from_numpy(data.y)
    for _ in range(4):
        theirs.zero_grad()
        weights = {n: centres[n][q.codes] * q.mask for n, q in quantized.items()}
        nn.functional.cross_entropy(functional_call(reference, weights, (X,)), y).backward()
        for n, tensor in quantized.items():
            counts = tensor.codes[tensor.mask].bincount(minlength=len(centres[n]))
            centres[n].grad /= counts
        theirs.step()
    for n, tensor in hook.result().items():
        assert not torch.equal(tensor.grid.levels, quantized[n].grid.levels)
        torch.testing.assert_close(tensor.grid.levels, centres[n].detach(), rtol=1e-4, atol=1e-5)


def test_gradients_are_shared_inside_only():
    """The weights' hooks are gone after training, or a copy of the net would keep them."""
    net, _, quantized = problem("codebook")
    hook = StraightThrough(net, quantized)
    weight = weight_matrices(net.module_)["first.weight"]
    weight.grad = None
    numbers = torch.arange(weight.numel()).view_as(weight) + 1.0
    with hook.shared_gradients():
        (weight * numbers).sum().backward()
    mask, codes = quantized["first.weight"].mask, quantized["first.weight"].codes
    for code in codes[mask].unique():
        members = mask & (codes == code)
        expected = numbers[members].mean().expand(int(members.sum()))
        torch.testing.assert_close(weight.grad[members], expected)
    assert (weight.grad[~mask] == 0).all()
    weight.grad = None
    (weight * numbers).sum().backward()
    assert torch.equal(weight.grad, numbers)


def test_set_weights():
    """Biases and the rest are left alone."""
    net, _, quantized = problem()
    biases = net.module_.first.bias.detach().clone()
    set_weights(net, quantized)
    for name, weight in weight_matrices(net.module_).items():
        assert torch.equal(weight, quantized[name].dequantize())
    assert torch.equal(net.module_.first.bias, biases)
