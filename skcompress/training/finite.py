"""Training that diverged, and is found out before anyone predicts with it."""

from collections.abc import Sequence

import torch
from skorch import NeuralNet
from torch import Tensor, nn


def is_finite(net: NeuralNet) -> bool:
    """Tell whether all the parameters of a net's modules are finite numbers."""
    modules = [getattr(net, name + "_") for name in net._modules]
    return all(all_finite(parameter) for m in modules for parameter in m.parameters())


def all_finite(tensor: Tensor) -> bool:
    """Tell whether nothing in a tensor is NaN or infinite.

    Examples
    --------
    >>> import torch
    >>> from skcompress.training.finite import all_finite
    >>> all_finite(torch.tensor([1.0, 2.0])), all_finite(torch.tensor([1.0, torch.nan]))
    (True, False)
    """
    if tensor.is_complex() or not tensor.numel():
        return bool(torch.isfinite(tensor).all())
    # Extremes are NaN where anything is, and take a tenth of the time of isfinite.
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor.detach()))).all())


def check_dense(net: NeuralNet) -> None:
    """Refuse to compress weights that are no numbers.

    Raises
    ------
    ValueError
        If a parameter is not finite.
    """
    if not is_finite(net):
        raise ValueError(
            "The dense net has weights that are NaN or infinite, before any compression. Did the"
            " net diverge? Lower its lr, clip gradients with skorch's GradientNormClipping, or"
            " scale X, and y for a regressor."
        )


def check_retrained(net: NeuralNet, losses: Sequence[Tensor], when: str) -> None:
    """Refuse to go on after an epoch of retraining that diverged.

    Parameters
    ----------
    net : skorch.NeuralNet
    losses : sequence of Tensor
        Loss of each step of the epoch.
    when : str
        Which epoch it was, for the message.

    Raises
    ------
    ValueError
        If a loss or a parameter is not finite.
    """
    last = torch.stack([loss.reshape(()) for loss in losses])
    if not is_finite(net):
        cause = "the weights became"
    elif not all_finite(last):
        cause = "the loss became"
    else:
        return
    if isinstance(net.criterion_, nn.NLLLoss) and cause == "the loss became":
        raise ValueError(
            f"In {when} of retraining the loss is NaN or infinite, and the weights are not. NLLLoss"
            " takes logarithms of what the module gives: let it end in a softmax, or set"
            " criterion=nn.CrossEntropyLoss in the net."
        )
    raise ValueError(
        f"Retraining diverged: in {when} {cause} NaN or infinite. Give"
        " a lower retrain_lr, clip gradients with skorch's GradientNormClipping, or scale X, and y"
        " for a regressor."
    )
