"""Hints: what layers of a teacher's net make of the rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet

from ..inputs import take_rows, to_dtype
from ..training.loop import Data, batches
from ..training.nets import copy_net, plain_module


def check_layers(net: NeuralNet, names: Any, X: Any, y: np.ndarray, whose: str) -> None:
    """Run two rows through a net, and look at the outputs of its layers.

    Raises
    ------
    ValueError
        If there is no such layer, or its output has not one entry for each row.
    """
    known = [name for name, _ in plain_module(net.module_).named_modules() if name]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"hints= names layers {unknown} of the {whose}, which has {known}.")
    rows = np.array([0, min(1, len(y) - 1)])
    for name, output in layer_outputs(net, names, take_rows(X, rows), y[rows]).items():
        if len(output) != len(rows):
            raise ValueError(
                f"The layer {name!r} of the {whose} gives an output of shape {output.shape} for"
                f" {len(rows)} rows; the first dimension must be that of the rows. Recurrent"
                " layers need batch_first=True."
            )


def layer_outputs(net: NeuralNet, names: Any, X: Any, y: np.ndarray) -> dict[str, np.ndarray]:
    """Return what layers of a copy of a net give in evaluation mode, by name."""
    net = copy_net(net)
    # Layers run in the module itself, not where it is computed in integers.
    net.module_ = plain_module(net.module_)
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in names}
    current: dict[str, Any] = {}

    def remember(name: str) -> Any:
        def hook(module: torch.nn.Module, args: tuple, output: Any) -> None:
            current[name] = output[0] if isinstance(output, tuple) else output

        return hook

    for name in outputs:
        net.module_.get_submodule(name).register_forward_hook(remember(name))
    net._set_training(False)
    with torch.no_grad():
        for Xi, _ in batches(net, Data(to_dtype(X, net.module_), y)):
            net.infer(Xi)
            for name in outputs:
                if name not in current:
                    raise ValueError(f"hints= names the layer {name!r}, which never runs.")
                # Of several passes through a layer, the last, as in the student's loss.
                outputs[name].append(current[name].cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in outputs.items()}


def student_hints(
    hints: Mapping[str, str], net: NeuralNet, X: Any, y: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the teacher's activations by the name of the student's layer that they are for."""
    outputs = layer_outputs(net, set(hints.values()), X, y)
    return {student: outputs[teacher] for student, teacher in hints.items()}
