"""Which weights share a scale: all of a tensor, those of an output, or runs of neighbours."""

import torch
from torch import Tensor, nn

Granularity = str | int


def to_rows(tensor: Tensor, granularity: Granularity) -> Tensor:
    """Lay a tensor out with a row for each group, in order.

    Parameters
    ----------
    tensor : Tensor of shape (n_outputs, ...)
    granularity : "tensor", "channel" or int >= 2
        One group; one for each output; or runs of so many inputs of an output, the last of which
        is filled up with zeros (False).

    Returns
    -------
    rows : Tensor of shape (n_groups, size)

    Examples
    --------
    >>> import torch
    >>> from skcompress.quantization.groups import to_rows
    >>> to_rows(torch.arange(6).reshape(2, 3), 2).tolist()
    [[0, 1], [2, 0], [3, 4], [5, 0]]
    """
    if granularity == "tensor":
        return tensor.reshape(1, -1)
    rows = tensor.flatten(1)
    if granularity == "channel":
        return rows
    size = int(granularity)
    return nn.functional.pad(rows, (0, -rows.shape[1] % size)).view(-1, size)


def from_rows(rows: Tensor, shape: torch.Size, granularity: Granularity) -> Tensor:
    """Undo :func:`to_rows`; a column of one value for each group is spread over it."""
    n_inputs = shape[1:].numel()
    if granularity in ("tensor", "channel"):
        size = shape.numel() if granularity == "tensor" else n_inputs
        return rows.expand(-1, size).reshape(shape)
    padded = rows.expand(-1, int(granularity)).reshape(shape[0], -1)
    return padded[:, :n_inputs].reshape(shape)
