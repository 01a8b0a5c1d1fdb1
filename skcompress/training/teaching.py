"""A net that stays on as teacher while it is compressed, and whether a net can be taught."""

from dataclasses import replace

import numpy as np
import torch
from sklearn.base import is_classifier
from skorch import NeuralNet
from torch import Tensor

from .loop import Data, batch_losses
from .nets import copy_net
from .soft import DEFAULT_TEMPERATURE, SoftTargets, check_criterion, log_probabilities


def taught_by(net: NeuralNet, data: Data, alpha: float, temperature: float | None = None) -> Data:
    """Let the answers of a trained net be the soft targets of the rows.

    They are computed once, in evaluation mode, on a copy of the net. Those of a classifier are
    probabilities, compared by their divergence; those of a regressor are numbers.

    Parameters
    ----------
    net : skorch.NeuralNet
        The teacher. It is not changed.
    data : Data
    alpha : float in [0, 1]
        Weight of the soft loss; with 0 the rows stay as they are.
    temperature : float > 0 or None, default=None
        None is 2, or nothing for a regressor.

    Returns
    -------
    data : Data
    """
    if alpha == 0:
        return data
    output = criterion_inputs(net, data)
    if not is_classifier(net):
        return replace(data, soft=SoftTargets(_array(output), alpha, kind="values"))
    probabilities = log_probabilities(net.criterion_, output).softmax(1)
    temperature = DEFAULT_TEMPERATURE if temperature is None else temperature
    return replace(data, soft=SoftTargets(_array(probabilities), alpha, temperature))


def criterion_inputs(net: NeuralNet, data: Data) -> Tensor:
    """Return what reaches a net's criterion for each row, by its own ``get_loss``."""
    net, inputs = copy_net(net), []

    def remember(module: torch.nn.Module, args: tuple) -> None:
        inputs.append(args[0].detach())

    net.criterion_.register_forward_pre_hook(remember)
    with torch.no_grad():
        list(batch_losses(net, Data(data.X, data.y)))
    if not inputs:
        raise ValueError(
            f"A teacher has no part in the loss: get_loss of {type(net).__name__} never calls"
            " criterion_. Compute its loss through self.criterion_, or train it without a"
            " teacher."
        )
    return torch.cat(inputs)


def check_taught(net: NeuralNet, data: Data) -> None:
    """Try two rows with soft targets on a net that is not trained yet.

    Raises
    ------
    ValueError
        If its loss cannot be joined by a teacher's.
    """
    check_criterion(net, "kl" if is_classifier(net) else "values")
    rows = Data(data.X, data.y).take(np.array([0, len(data.y) - 1]))
    list(batch_losses(net, taught_by(net, rows, alpha=0.5)))


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
