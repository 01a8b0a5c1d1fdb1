"""Rows that end in zeros, as padded sequences do, and modules that treat them otherwise."""

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


def nested_tensors_refused(module: nn.Module, kind: str) -> ValueError | None:
    """Return why nothing of this kind can be written, if it is for an encoder's nested tensors."""
    if not encoders_with_nested_tensors(module):
        return None
    return ValueError(
        f"The nn.TransformerEncoder in {type(module).__name__} computes something else for a batch"
        f" that is padded on the right, by nested tensors, which a {kind} cannot hold. Build it"
        " with enable_nested_tensor=False; compressed nets are without them."
    )
