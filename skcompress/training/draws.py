"""Modules that are built without drawing initial weights, which others will take the place of."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

# Through these torch's own layers draw: half of the time that building a module takes.
_DRAWING = (init.uniform_, init.normal_, init.kaiming_uniform_, init.kaiming_normal_)
# A constructor may draw until it likes what it sees.
_MOST = 10_000


class WithoutDraws(TorchFunctionMode):
    """Let ``torch.nn.init`` set zeros inside, in the place of random numbers.

    Other draws are made, from a generator that has given less by then: what a module keeps of
    them may differ, and so may what it computes from its first weights.

    Examples
    --------
    >>> from torch import nn
    >>> from skcompress.training.draws import WithoutDraws
    >>> with WithoutDraws():
    ...     layer = nn.Linear(2, 1)
    >>> layer.weight.tolist()
    [[0.0, 0.0]]
    """

    def __init__(self) -> None:
        super().__init__()
        self.n_left = _MOST

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        if func not in _DRAWING or not self.n_left:
            return func(*args, **kwargs)
        self.n_left -= 1
        tensor = args[0] if args else kwargs["tensor"]
        with torch.no_grad():
            return tensor.zero_()
