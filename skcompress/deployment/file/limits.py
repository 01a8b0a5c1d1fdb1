"""How much the operations of a file compute, found on shapes alone before anything is computed."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from .errors import MAX_ELEMENTS, MAX_MADE, MAX_RESULTS, MAX_WORK, check

# What takes as long as so many multiplications: an element that is read or written, or sorted.
_ELEMENT, _SORTED = 1 << 5, 1 << 10


class Limits(TorchDispatchMode):
    """Watches operations on tensors of the ``"meta"`` device, and refuses what is too much.

    It sees what an operation consists of, results in between included.

    Attributes
    ----------
    share : float
        The largest share that was used of a limit on what grows with the rows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.share = 0.0
        self.work = self.made = self.alive = 0
        self.readers: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            n = tensor.numel()
            check(n <= MAX_ELEMENTS, f"a result of {func} has {n} elements")
        work = 0 if func.is_view else _work(func, args, kwargs, result)
        unfolded = _unfolded(func, args, result)
        self._use(self.alive + unfolded, MAX_RESULTS, "a convolution takes so many bytes at once")
        self.add(work, len(list(_tensors(result))))
        return result

    def add(self, work: int, made: int) -> None:
        """Count multiplications, and tensors made, each of which takes its time."""
        self.work += work
        self.made += made
        check(self.made <= MAX_MADE, "its operations make too many tensors")
        self._use(self.work, MAX_WORK, "its operations take so many multiplications")

    def keep(self, value: Any, *, counted: bool = True) -> None:
        """Count the memory of a result until it is dropped; views of the same memory once."""
        for tensor in _tensors(value):
            memory = tensor.untyped_storage()
            if self.readers[memory._cdata] == 0 and counted:
                self.alive += memory.nbytes()
            self.readers[memory._cdata] += 1
        self._use(self.alive, MAX_RESULTS, "its results take so many bytes at once")

    def drop(self, value: Any) -> None:
        """Count a result no more."""
        for tensor in _tensors(value):
            memory = tensor.untyped_storage()
            self.readers[memory._cdata] -= 1
            if self.readers[memory._cdata] == 0:
                self.alive -= memory.nbytes()

    def _use(self, amount: int, limit: int, what: str) -> None:
        check(amount <= limit, f"{what}: {amount}, of {limit}")
        self.share = max(self.share, amount / limit)


def _tensors(value: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _work(func: Any, args: tuple, kwargs: dict[str, Any], result: Any) -> int:
    """Estimate what an operation takes, in multiplications."""
    packet = func.overloadpacket
    written = sum(tensor.numel() for tensor in _tensors(result))
    if packet in flop_registry:
        # torch counts additions as well.
        return _ELEMENT * written + flop_registry[packet](*args, **kwargs, out_val=result) // 2
    name = packet.__name__
    read = sum(tensor.numel() for tensor in _tensors((args, kwargs)))
    work = (_SORTED if name in ("sort", "topk") else _ELEMENT) * (read + written)
    if "_pool" in name and "adaptive" not in name:
        work += _window(name, *args) * written
    elif name == "addbmm":
        work += args[1].numel() * args[2].shape[-1]
    elif name == "_trilinear":
        products = args[0].numel() * args[2].numel() // max(args[0].shape[-1], 1)
        check(products <= MAX_ELEMENTS, f"a bilinear layer takes {products} products")
        work += products
    return work


def _window(
    name: str, values: Tensor, kernel: list[int], stride: Any = (), padding: Any = 0, *_: Any
) -> int:
    """Count what a pooling reads for an element; a window may not be larger than what it is on."""
    sizes = values.shape[-3 if "3d" in name else -2 :]
    kernel, padding = (_repeated(setting, len(sizes)) for setting in (kernel, padding))
    larger = any(k > size + 2 * p for k, size, p in zip(kernel, sizes, padding, strict=True))
    check(not larger, f"{name} has a window of {kernel} on {tuple(sizes)} elements")
    return math.prod(kernel)


def _repeated(setting: Any, n: int) -> list[int]:
    parts = list(setting) if isinstance(setting, (list, tuple)) else [setting]
    return parts * n if len(parts) == 1 else parts


def _unfolded(func: Any, args: tuple, result: Any) -> int:
    """Count the bytes of the windows that a convolution lays side by side, if it does.

    It has faster ways in single precision alone.
    """
    if func.overloadpacket is not torch.ops.aten.convolution or args[0].dtype == torch.float32:
        return 0
    values, weight, transposed = args[0], args[1], args[6]
    if transposed:  # from its windows it makes the result, channel by channel
        channels, places = weight.shape[1] * args[8], values.shape[2:]
    else:
        channels, places = values.shape[1], result.shape[2:]
    windows = values.shape[0] * math.prod(places)
    return windows * channels * math.prod(weight.shape[2:]) * values.element_size()
