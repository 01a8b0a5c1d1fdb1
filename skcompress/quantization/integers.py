"""Prediction in integers: weights and activations of 8 bits, sums without rounding."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .recurrent import RECURRENT, run_recurrent
from .tensors import QuantizedTensor

# A float32 holds every integer up to here, and so sums of them, in whatever order.
EXACT = 2**24
CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
Range = tuple[float, float]


class IntegerModule(nn.Module):
    """A module whose linear, convolutional and recurrent operations work on integers.

    An operation ``y = W x + b`` with weights ``W = s V``, V in integers, becomes
    ``y = s t (V q) + b``, where q are the integers of the activations and t their scale. The sums
    ``V q`` are exact. With static ranges b is rounded to whole ``s t``, which kernels of integers
    add to the sums. All else (norms, nonlinearities, products of activations in attention) is
    computed in floating point.

    Parameters
    ----------
    module : torch.nn.Module
        Holds the weights that the codes stand for.
    quantized : dict of QuantizedTensor
        The weights, in an integer format, with a scale for each tensor or channel.
    ranges : dict of (float, float) or None
        Smallest and largest input of each weight ("static"), best as :func:`widened` gives them:
        ``t = (high - low) / 255``, ``z = round(-low / t)`` and
        ``q = clip(round(x / t) + z, 0, 255) - z``. With None ("dynamic"), each row has
        ``t = max |x| / 127`` and ``q = round(x / t)``, so that what is predicted for a row does not
        depend on its company.
    """

    computes_in_integers = True

    def __init__(
        self,
        module: nn.Module,
        quantized: Mapping[str, QuantizedTensor],
        ranges: dict[str, Range] | None,
    ) -> None:
        super().__init__()
        self.module = module
        self.integers = {}
        for name, tensor in quantized.items():
            integers, scale = tensor.integers()
            self.integers[name] = integers.to(torch.int16), scale
        self.ranges = ranges

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module; see its own ``forward``."""
        with _unfused_attention(), _Products(self):
            return self.module(*args, **kwargs)

    def product(
        self,
        function: Callable,
        name: str,
        rows: slice,
        x: Tensor,
        bias: Tensor | None,
        *settings: Any,
    ) -> Tensor:
        """Compute ``function(x, weight[rows], bias, *settings)`` by the weight's integers."""
        integers, weight_scale = (tensor[rows].to(x.device) for tensor in self.integers[name])
        is_linear = function is functional.linear
        if self.ranges is None:
            # A row is a vector for a linear function, and a whole sample for a convolution.
            q, t = dynamic(x, -1 if is_linear else tuple(range(1, x.dim())))
        else:
            q, t = static(x, *self.ranges[name])
        largest = float(integers.abs().max()) * 255 * integers[0].numel()
        exact = x.dtype if largest < EXACT else torch.double
        sums = function(q.to(exact), integers.to(exact), None, *settings)
        # Outputs are the last dimension of a linear function, the second of a convolution.
        shape = (-1,) if is_linear else (-1, *[1] * (sums.dim() - 2))
        unit = t * weight_scale.view(shape)
        if bias is None:
            return sums.to(x.dtype) * unit
        bias = bias.view(shape)
        if self.ranges is None:
            return sums.to(x.dtype) * unit + bias
        return (sums + (bias / unit).round()).to(x.dtype) * unit


def dynamic(x: Tensor, dims: int | tuple[int, ...]) -> tuple[Tensor, Tensor | float]:
    """Return 8-bit integers with sign and the scale of each row, which `dims` make up.

    Examples
    --------
    >>> import torch
    >>> from skcompress.quantization.integers import dynamic
    >>> q, scale = dynamic(torch.tensor([[0.5, -1.0]]), -1)
    >>> q.tolist(), round(float(scale), 4)
    ([[64.0, -127.0]], 0.0079)
    """
    scale = x.abs().amax(dims, keepdim=True) / 127
    scale = torch.where(scale > 0, scale, 1.0)
    return (x / scale).round(), scale


def static(x: Tensor, low: float, high: float) -> tuple[Tensor, float]:
    """Return 8-bit integers without sign, less their zero point, and the scale.

    Examples
    --------
    >>> import torch
    >>> from skcompress.quantization.integers import static
    >>> static(torch.tensor([0.0, 0.5, 9.0]), 0.0, 2.55)[0].tolist()
    [0.0, 50.0, 255.0]
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    zero = round(-low / scale)
    return ((x / scale).round() + zero).clamp(0, 255) - zero, scale


def widened(low: float, high: float) -> Range:
    """Return a range around another one and zero, whose step is a power of two.

    Kernels of integers multiply sums by the step of a layer's inputs, over that of the next
    layer's, at once. With powers of two that rounds to the same integers as one after the other,
    so that what runs is what was scored. It costs up to one of the 8 bits.

    Source: Jain et al., "Trained quantization thresholds for accurate and efficient fixed-point
    inference of deep neural networks", MLSys 2020, for powers of two.

    Examples
    --------
    >>> from skcompress.quantization.integers import widened
    >>> widened(-0.1, 1.0)
    (-0.1015625, 1.890625)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if not (high - low) / 255:
        return low, high
    step = 2.0 ** math.ceil(math.log2((high - low) / 255))
    # Zero is one of the steps; what that cuts off is less than half of one.
    below = round(-low / step)
    return -below * step, (255 - below) * step


class _Products(TorchFunctionMode):
    """Send the operations of known weights to an IntegerModule, whichever layer calls them."""

    def __init__(self, owner: IntegerModule) -> None:
        super().__init__()
        self.owner = owner
        self.weights = {name: owner.module.get_parameter(name) for name in owner.integers}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in RECURRENT:
            return run_recurrent(RECURRENT[func], self._linear, *args, **kwargs)
        if func is functional.linear or func in CONVOLUTIONS:
            return self._call(func, *args, **kwargs)
        if func is functional.multi_head_attention_forward:
            with self:
                return _attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _call(
        self, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, *settings: Any,
        **named: Any,
    ) -> Tensor:  # fmt: skip
        for name, whole in self.weights.items():
            rows = _rows_of(whole, weight)
            if rows is not None:
                function = partial(func, **named) if named else func
                return self.owner.product(function, name, rows, input, bias, *settings)
        return func(input, weight, bias, *settings, **named)

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._call(functional.linear, x, weight, bias)


def _rows_of(whole: Tensor, part: Tensor) -> slice | None:
    """Return which rows of a weight a tensor is, if it is in the same memory in the same way."""
    if part is whole:
        return slice(None)
    if whole.numel() == 0 or part.shape[1:] != whole.shape[1:] or part.stride() != whole.stride():
        return None
    bytes_of_row = whole.stride(0) * whole.element_size()
    first, rest = divmod(part.data_ptr() - whole.data_ptr(), bytes_of_row)
    fits = part.dtype == whole.dtype and part.device == whole.device and rest == 0
    return slice(first, first + len(part)) if fits and 0 <= first < len(whole) else None


# torch's function, written in Python, which does not hand itself over to a mode once more, so
# that the mode sees the products inside.
_attention = FunctionType(
    functional.multi_head_attention_forward.__code__,
    {**vars(functional), "has_torch_function": lambda tensors: False},
    argdefs=functional.multi_head_attention_forward.__defaults__,
)


@contextlib.contextmanager
def _unfused_attention() -> Iterator[None]:
    """Keep attention off its fused path, which hides the products."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
