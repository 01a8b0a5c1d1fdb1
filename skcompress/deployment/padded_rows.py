"""Rows that end in zeros, as padded sequences do, and modules that treat them otherwise."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from ..training.nets import encoders_with_nested_tensors


def ending_in_zeros(values: np.ndarray) -> np.ndarray:
    """Return a copy of rows, which end in zeros after one, two and more steps.

    Examples
    --------
    >>> import numpy as np
    >>> from skcompress.deployment.padded_rows import ending_in_zeros
    >>> ending_in_zeros(np.ones((4, 3), dtype=int)).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0]]
    """
    padded = np.array(values)
    for i in range(len(padded) if padded.ndim > 1 else 0):
        padded[i, 1 + i % padded.shape[1] :] = 0
    return padded


def refuse_nested_tensors(module: nn.Module, run: Callable[[], Any], kind: str) -> None:
    """Refuse a module with an encoder that is told what is padding, and computes by nested tensors.

    Parameters
    ----------
    module : torch.nn.Module
    run : callable
        Runs the module on some rows.
    kind : {"file", "graph"}
        What the module is written to.

    Raises
    ------
    ValueError
        Naming the remedy.
    """
    masks: list[Any] = []

    def note(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        masks.append(kwargs.get("src_key_padding_mask", args[2] if len(args) > 2 else None))

    with contextlib.ExitStack() as stack:
        for encoder in encoders_with_nested_tensors(module):
            stack.callback(encoder.register_forward_pre_hook(note, with_kwargs=True).remove)
            with contextlib.suppress(Exception):  # rows of nothing but padding raise
                run()
    if any(mask is not None for mask in masks):
        raise ValueError(
            f"The nn.TransformerEncoder in {type(module).__name__} computes something else for a"
            f" batch that is padded on the right, by nested tensors, which a {kind} cannot hold."
            " Build it with enable_nested_tensor=False; compressed nets are without them."
        )
