"""What is important: scores of weights, one function per criterion.

A criterion is a function ``(net, X, y, sample_weight)`` that returns, for every prunable
weight, a non-negative tensor shaped like it; larger is more important. `net` is an initialized
skorch net, `X` and `y` are the rows given to ``fit`` in the form that the net takes.
It knows no layer type, no budget and no schedule; a unit's score is the sum over the weights
that leave with it. A criterion of the loss has a keyword ``soft`` more: what a teacher says of
the rows (SoftTargets), where one has a part in the loss.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from skorch import NeuralNet
from torch import Tensor

from ..activations import input_means
from ..layers import weight_matrices
from ..training.finite import all_finite
from ..training.loop import Data, batch_losses, evenly_spaced
from ..training.soft import SoftTargets
from .obs import obs

Scores = dict[str, Tensor]
Criterion = Callable[..., Scores]

FISHER_ROWS = 500
TEMPERED_ROWS = 2048


def magnitude(net: NeuralNet, X: Any, y: Any, sample_weight: Any) -> Scores:
    """Absolute value: ``|w|``.

    Source: Han et al., "Learning both weights and connections", NIPS 2015.
    """
    return {n: w.detach().abs() for n, w in weight_matrices(net.module_).items()}


def random(net: NeuralNet, X: Any, y: Any, sample_weight: Any) -> Scores:
    """Uniform random numbers, the control that every other criterion has to beat."""
    return {n: torch.rand_like(w) for n, w in weight_matrices(net.module_).items()}


def gradient(
    net: NeuralNet, X: Any, y: Any, sample_weight: Any, *, soft: SoftTargets | None = None
) -> Scores:
    """First-order estimate of the change in loss: ``|w * dL/dw|``, L over all rows.

    Source: Molchanov et al., "Importance estimation for neural network pruning", CVPR 2019.
    """
    weights, data = weight_matrices(net.module_), Data(X, y, sample_weight, soft)
    total, sums = 0.0, {n: torch.zeros_like(w) for n, w in weights.items()}
    for gradients, weight in _gradients(net, data, weights):
        total += weight
        for name, value in gradients.items():
            sums[name] += weight * value
    return {n: (w.detach() * sums[n] / total).abs() for n, w in weights.items()}


def fisher(
    net: NeuralNet, X: Any, y: Any, sample_weight: Any, *, soft: SoftTargets | None = None
) -> Scores:
    """Second-order estimate of the change in loss: ``w^2 E[g^2] / 2``, g per row.

    The diagonal of the empirical Fisher information stands for the Hessian. At most 500
    rows, evenly spaced, are used.

    Source: LeCun et al., "Optimal brain damage", NIPS 1989; Theis et al., "Faster gaze
    prediction with dense networks and Fisher pruning", 2018.
    """
    weights = weight_matrices(net.module_)
    data = evenly_spaced(Data(X, y, sample_weight, soft), FISHER_ROWS)
    total, sums = 0.0, {n: torch.zeros_like(w) for n, w in weights.items()}
    for gradients, weight in _gradients(net, data, weights, batch_size=1):
        total += weight
        for name, value in gradients.items():
            sums[name].addcmul_(value, value, value=weight)
    return {n: w.detach().square() * sums[n] / (2 * total) for n, w in weights.items()}


def tempered_fisher(
    net: NeuralNet,
    X: Any,
    y: Any,
    sample_weight: Any,
    *,
    power: float = 0.35,
    decay: float = 0.998,
    soft: SoftTargets | None = None,
    mean_squares: Scores | None = None,
) -> Scores:
    """Magnitude tempered by gradients: ``|w| (E[g^2])^power``, g per batch.

    E is a running mean over batches of at most 2,048 rows, evenly spaced, corrected for its start
    at zero; once retraining has made ``1 / (1 - decay)`` steps, it is the running mean over those.
    A `power` of 0 is the magnitude, 0.5 ranks as the Fisher diagonal of batches.
    ``functools.partial(tempered_fisher, power=0.5)`` is a criterion as well.
    """
    weights = weight_matrices(net.module_)
    if mean_squares is not None:
        return {n: w.detach().abs() * mean_squares[n] ** power for n, w in weights.items()}
    data = evenly_spaced(Data(X, y, sample_weight, soft), TEMPERED_ROWS)
    steps, means = 0, {n: torch.zeros_like(w) for n, w in weights.items()}
    for gradients, _ in _gradients(net, data, weights):
        steps += 1
        for name, value in gradients.items():
            means[name].mul_(decay).addcmul_(value, value, value=1 - decay)
    correction = 1 - decay**steps
    return {n: w.detach().abs() * (means[n] / correction) ** power for n, w in weights.items()}


def wanda(net: NeuralNet, X: Any, y: Any, sample_weight: Any) -> Scores:
    """Magnitude times the root mean square of the input: ``|w_ij| rms(x_j)``.

    Source: Sun et al., "A simple and effective pruning approach for large language models",
    ICLR 2024; the mean in place of the sum makes layers comparable.
    """
    squares = input_means(net, Data(X, y, sample_weight), torch.square)
    return {
        n: w.detach().abs() * _per_input(squares[n].sqrt(), w)
        for n, w in weight_matrices(net.module_).items()
    }


def activation(net: NeuralNet, X: Any, y: Any, sample_weight: Any) -> Scores:
    """Mean absolute activation that a weight reads.

    The score of a unit is the mean, not the sum, over the weights that read it: its mean absolute
    activation, however many layers and columns read it.

    Source: Hu et al., "Network trimming", 2016, with means in place of counts of zeros.
    """
    means = input_means(net, Data(X, y, sample_weight), torch.abs)
    return {
        n: _per_input(means[n], w).expand_as(w).clone()
        for n, w in weight_matrices(net.module_).items()
    }


CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "gradient": gradient,
    "fisher": fisher,
    "tempered-fisher": tempered_fisher,
    "obs": obs,
    "activation": activation,
    "wanda": wanda,
    "random": random,
}


def named(criterion: str | Criterion) -> str | Criterion:
    """Return the name of a criterion that is one of :data:`CRITERIA`, or what was given."""
    return next((name for name, own in CRITERIA.items() if own is criterion), criterion)


def as_function(criterion: str | Criterion) -> Criterion:
    """Return the function behind a name."""
    return CRITERIA[criterion] if isinstance(criterion, str) else criterion


def score(
    criterion: str | Criterion, net: NeuralNet, data: Data, mean_squares: Scores | None = None
) -> Scores:
    """Score every prunable weight, and check what a callable returned.

    Parameters
    ----------
    criterion : str or callable
    net : skorch.NeuralNet
    data : Data
    mean_squares : dict of Tensor or None, default=None
        Running means of squared gradients, for a criterion that takes them.

    Raises
    ------
    ValueError
        If names, shapes or values are not what a criterion gives.
    """
    function = as_function(criterion)
    offered = {"soft": data.soft, "mean_squares": mean_squares}
    takes = inspect.signature(function).parameters
    beside = {n: value for n, value in offered.items() if value is not None and n in takes}
    scores = function(net, data.X, data.y, data.sample_weight, **beside)
    weights = weight_matrices(net.module_)
    if not isinstance(scores, dict) or set(scores) != set(weights):
        got = sorted(scores) if isinstance(scores, dict) else type(scores).__name__
        raise ValueError(
            f"A criterion returns a dict of scores for exactly {list(weights)}; got {got}."
        )
    for name, weight in weights.items():
        value = scores[name]
        if not isinstance(value, Tensor) or value.shape != weight.shape:
            kind = type(value).__name__
            shape = tuple(value.shape) if isinstance(value, Tensor) else kind
            raise ValueError(
                f"The criterion's scores for {name!r} must be a tensor of shape"
                f" {tuple(weight.shape)}; got {shape}."
            )
        if not (all_finite(value) and value.min() >= 0):
            raise ValueError(
                f"The criterion's scores for {name!r} must be finite and non-negative; got values"
                f" from {value.min().item():g} to {value.max().item():g}. Did the net diverge?"
                " Lower retrain_lr, or the lr of the net."
            )
    return {n: _floating(scores[n].detach(), w.dtype) for n, w in weights.items()}


def _floating(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Let scores count something, in integers."""
    return value if value.is_floating_point() else value.to(dtype)


def _gradients(
    net: NeuralNet, data: Data, weights: Mapping[str, Tensor], batch_size: int | None = None
) -> Iterator[tuple[Scores, float]]:
    """Yield the gradient of each batch's mean loss with the batch's weight."""
    with _differentiable(weights):
        for loss, total in batch_losses(net, data, batch_size):
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            yield {n: g for n, g in zip(weights, gradients, strict=True) if g is not None}, total


@contextlib.contextmanager
def _differentiable(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let frozen weights have gradients, for their score."""
    required = {name: weight.requires_grad for name, weight in weights.items()}
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        yield
    finally:
        for name, weight in weights.items():
            weight.requires_grad_(required[name])


def _per_input(statistic: Tensor, weight: Tensor) -> Tensor:
    """Line a statistic of the inputs up with the second dimension of a weight."""
    return statistic.reshape(1, -1, *[1] * (weight.dim() - 2))
