"""Soft targets: what a teacher says of each row, and the losses that compare a student with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from skorch import NeuralNet
from torch import Tensor, nn

# Entries that travel beside the rows.
TARGET, ALPHA, HINT = "skcompress_target", "skcompress_alpha", "skcompress_hint_"
# Where log-probabilities are targets, a probability of zero counts as this one: what single
# precision can tell from zero beside one.
FLOOR = 1e-7
DEFAULT_TEMPERATURE = 2.0


@dataclass(frozen=True)
class SoftTargets:
    r"""What a teacher says of each row, and how much it counts.

    The loss of row i is ``(1 - alpha_i) * hard_i + alpha_i * soft_i``, where hard is the net's
    own criterion and soft is, by `kind`,

    - ``"kl"``: ``T**2 * KL(teacher || student)``, both at temperature T [1]_;
    - ``"logits"``: the mean over classes of the squared difference of log-probabilities that are
      centred within the row [2]_; the teacher's below ``log(FLOOR)`` count as ``log(FLOOR)``;
    - ``"values"``: the squared difference of a regressor's outputs.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_classes) or (n_samples, ...)
        The teacher's probabilities, or for ``"values"`` its predictions in the shape of the
        module's outputs.
    alpha : float in [0, 1] or ndarray of shape (n_samples,), default=0.7
        Weight of the soft part, for all rows or row by row: 1 for a row without a label, 0 for
        one that the teacher says nothing about.
    temperature : float > 0, default=2.0
        Only for ``"kl"``.
    kind : {"kl", "logits", "values"}, default="kl"
    hints : dict of ndarray of shape (n_samples, ...)
        A teacher's activations for layers of the student by name; their loss, times
        `hint_weight`, is added to that of each batch. See :func:`similarity_loss`.
    hint_weight : float > 0, default=1.0

    References
    ----------
    .. [1] G. Hinton, O. Vinyals and J. Dean, "Distilling the knowledge in a neural network",
       2015.
    .. [2] J. Ba and R. Caruana, "Do deep nets really need to be deep?", NIPS 2014.
    """

    values: np.ndarray
    alpha: float | np.ndarray = 0.7
    temperature: float = DEFAULT_TEMPERATURE
    kind: str = "kl"
    hints: Mapping[str, np.ndarray] = field(default_factory=dict)
    hint_weight: float = 1.0

    def columns(self) -> dict[str, np.ndarray]:
        """Return what travels beside each row: its target, alpha and hints."""
        alpha = np.full(len(self.values), self.alpha, dtype=self.values.dtype)
        hints = {HINT + layer: value for layer, value in self.hints.items()}
        return {TARGET: self._targets(), ALPHA: alpha, **hints}

    def take(self, rows: np.ndarray) -> "SoftTargets":
        """Keep some rows."""
        alpha = self.alpha[rows] if isinstance(self.alpha, np.ndarray) else self.alpha
        hints = {layer: value[rows] for layer, value in self.hints.items()}
        return SoftTargets(
            self.values[rows], alpha, self.temperature, self.kind, hints, self.hint_weight
        )

    def _targets(self) -> np.ndarray:
        if self.kind == "kl":
            return tempered(self.values, self.temperature)
        if self.kind == "logits":
            return centred_logarithms(self.values)
        return self.values

    def losses(self, criterion: nn.Module, output: Tensor, target: Tensor) -> Tensor:
        """Compare what reaches a student's criterion with the targets, row by row.

        Parameters
        ----------
        criterion : nn.Module
            The net's own; it tells what its input means.
        output : Tensor of shape (n_rows, ...)
            The criterion's input.
        target : Tensor of shape (n_rows, ...)
            From :meth:`columns`.

        Returns
        -------
        losses : Tensor of shape (n_rows,), or that of `output` for ``"values"``
        """
        target = target.to(output.dtype)
        if self.kind == "values":
            return (output - target) ** 2
        logits = log_probabilities(criterion, output)
        if self.kind == "logits":
            return ((logits - logits.mean(1, keepdim=True) - target) ** 2).mean(1)
        student = (logits / self.temperature).log_softmax(1)
        divergence = (torch.xlogy(target, target) - target * student).sum(1)
        return self.temperature**2 * divergence


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Raise probabilities to the power 1/T and normalize: the softmax of logits / T.

    Examples
    --------
    >>> import numpy as np
    >>> from skcompress.training.soft import tempered
    >>> tempered(np.array([[0.8, 0.2, 0.0]]), 2.0).round(3)
    array([[0.667, 0.333, 0.   ]])
    """
    # The largest is one before the power, so that no row vanishes at a low temperature.
    powers = (probabilities / probabilities.max(1, keepdims=True)) ** (1 / temperature)
    return powers / powers.sum(1, keepdims=True)


def centred_logarithms(probabilities: np.ndarray) -> np.ndarray:
    """Return logits whose mean in each row is zero."""
    logits = np.log(np.maximum(probabilities, FLOOR))
    return logits - logits.mean(1, keepdims=True)


def log_probabilities(criterion: nn.Module, output: Tensor) -> Tensor:
    """Read a criterion's input as log-probabilities, up to a constant in each row.

    That is what a cross entropy takes, and NLLLoss too: skorch gives it the logarithms of a
    module's probabilities. A single logit z stands for the pair (0, z).
    """
    if isinstance(criterion, nn.BCEWithLogitsLoss):
        output = output.reshape(-1)
        return torch.stack([torch.zeros_like(output), output], dim=1)
    if isinstance(criterion, nn.BCELoss):
        # As far down as the criterion's own logarithms go.
        pair = torch.stack([1 - output.reshape(-1), output.reshape(-1)], dim=1)
        return pair.log().clamp_min(-100)
    return output


def check_criterion(net: NeuralNet, kind: str) -> None:
    """Refuse a criterion whose input cannot be compared with a teacher's answers.

    Raises
    ------
    ValueError
        If it is not known to take logits or log-probabilities, or for ``"values"`` if it takes
        something else than predictions.
    """
    criterion, name = net.criterion_, type(net.criterion_).__name__
    entropies = (nn.CrossEntropyLoss, nn.NLLLoss, nn.BCEWithLogitsLoss, nn.BCELoss)
    if kind != "values" and not isinstance(criterion, entropies):
        raise ValueError(
            f"A teacher's probabilities are compared with log-probabilities, and what"
            f" criterion={name} takes is not known to be that. Give the net CrossEntropyLoss,"
            " NLLLoss, BCEWithLogitsLoss, BCELoss or a subclass of one."
        )
    if kind == "values" and isinstance(criterion, (nn.PoissonNLLLoss, nn.GaussianNLLLoss)):
        raise ValueError(
            f"A teacher's predictions are compared with the module's outputs, and criterion={name}"
            " takes rates or variances. Give the net MSELoss, L1Loss, HuberLoss or another"
            " criterion of predictions."
        )


def similarity_loss(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Compare which rows of a batch two layers find similar; their widths may differ.

    The matrix of inner products between rows, each of its rows scaled to length one, is
    compared by the mean squared difference of entries. Sample weights count rows.

    Source: F. Tung and G. Mori, "Similarity-preserving knowledge distillation", ICCV 2019.

    Parameters
    ----------
    student, teacher : Tensor of shape (n_rows, ...)
        Activations.
    weight : Tensor of shape (n_rows,)
        Sample weights.

    Returns
    -------
    loss : Tensor of shape ()

    Examples
    --------
    >>> import torch
    >>> from skcompress.training.soft import similarity_loss
    >>> A, turn = torch.randn(4, 2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    >>> bool(similarity_loss(A, 3 * A @ turn, torch.ones(4)) < 1e-12)  # the same similarities
    True
    """
    difference = _similarities(student, weight) - _similarities(teacher, weight)
    pairs = weight[:, None] * weight
    return (pairs * difference**2).sum() / pairs.sum()


def _similarities(activations: Tensor, weight: Tensor) -> Tensor:
    rows = activations.flatten(1)
    products = rows @ rows.T
    lengths = (weight * products**2).sum(1, keepdim=True)
    # Where all is zero, such as behind a dead ReLU, the root's slope would be infinite.
    return products / lengths.clamp_min(torch.finfo(lengths.dtype).tiny).sqrt()
