"""The operations that a file may hold, and how they are run.

They are those of ATen, torch's own library, that compute tensors from tensors: none reads or
writes files, calls back into Python or reads memory by address. Operations on Python's own numbers
and strings are not among them: a trace with a fixed number of rows has none.
"""

from collections.abc import Callable
from functools import lru_cache
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_NAMES = """
_log_softmax _softmax _to_copy _unsafe_view abs adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d add add_ addbmm
addcdiv addcmul addmm addmv addr alias all alpha_dropout amax amin any arange arctan2 argmax
argmin argsort asin atan atan2 avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bilinear
bitwise_and bitwise_not bitwise_or bitwise_xor bmm bucketize cat ceil celu channel_shuffle chunk
clamp clamp_ clamp_max clamp_min clip clone col2im concat constant_pad_nd contiguous conv1d
conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d copy_ cos cosh
cosine_similarity count_nonzero cross cummax cumprod cumsum detach detach_ diag_embed diagonal
diff div div_ dot dropout dropout_ einsum elu elu_ embedding empty_like eq erf erfc erfinv exp
exp2 expand expand_as expm1 eye feature_dropout fill_ flatten flip floor floor_divide fmod frac
full full_like gather ge gelu getitem glu group_norm gru gru_cell gt hardshrink hardsigmoid
hardswish hardswish_ hardtanh hardtanh_ hstack im2col index index_add index_select instance_norm
isfinite isinf isnan layer_norm le leaky_relu leaky_relu_ lerp lift_fresh_copy
linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid log_softmax logaddexp
logical_and logical_not logical_or logical_xor logsumexp lstm lstm_cell lt mT masked_fill
masked_fill_ matmul max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d maximum mean
min minimum mish mm movedim mul mul_ mv nan_to_num narrow native_layer_norm ne neg new_empty
new_full new_ones new_zeros norm numpy_T one_hot ones ones_like pad permute pixel_shuffle
pixel_unshuffle pow prelu prod ravel reciprocal relu relu6 relu_ remainder repeat
repeat_interleave reshape rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll round
rrelu rsqrt rsub scaled_dot_product_attention scatter scatter_add select selu selu_ sigmoid
sigmoid_ sign silu silu_ sin sinc sinh slice softmax softplus softshrink sort special_expit
split split_with_sizes sqrt square squeeze stack std std_mean sub sub_ sum swapaxes t tan tanh
tanh_ threshold tile to topk transpose tril triu true_divide trunc type_as unbind unflatten
unsafe_chunk unsafe_split unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d
upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean view
view_as vstack where xlogy zeros zeros_like
"""
ALLOWED = frozenset(_NAMES.split())

# Those that make tensors of numbers alone.
MAKERS = frozenset({"arange", "eye", "full", "linspace", "ones", "zeros"})
_TENSORS = {"Tensor", "List[Tensor]"}
# These have no form that is safe below, and are rare: repeats that are tensors may be negative, and
# are written before anyone looks.
_REFUSED = frozenset(
    {"div_.Scalar_mode", "div_.Tensor_mode", "gru.data", "lstm.data", "repeat_interleave.Tensor",
     "repeat_interleave.self_Tensor", "rnn_relu.data", "rnn_tanh.data"}
)  # fmt: skip
# What says where and how to compute, by the words of ATen's schemas.
_PLACES = ("Device", "Generator", "Layout", "MemoryFormat")
# Beyond these, the windows of an interpolation are not what their sizes say.
_SCALES = (1e-3, 1e3)


def _div(x: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """Divide; of integers, the smallest by -1 too, at which the processor traps when truncating."""
    result: Tensor
    if rounding_mode == "trunc" and not torch.result_type(x, other).is_floating_point:
        result = torch.sub(x, torch.fmod(x, other)).div(other, rounding_mode="floor")
    else:
        result = torch.div(x, other, rounding_mode=rounding_mode)
    return result


# By these functions, and not by ATen's: so that prediction in integers can take their place, or
# since ATen's leave memory as it was found.
_BY_PYTHON: dict[str, Callable] = {
    "linear": functional.linear,
    "conv1d": torch.conv1d,
    "conv2d": torch.conv2d,
    "conv3d": torch.conv3d,
    "lstm": torch.lstm,
    "gru": torch.gru,
    "rnn_tanh": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
    "getitem": getitem,
    "empty_like": torch.zeros_like,
    "new_empty": torch.ops.aten.new_zeros,
    "div": _div,
}
_DROPPED = ("device", "pin_memory", "layout", "memory_format", "non_blocking")


def operation_name(target: Any) -> str:
    """Name an operation as a file does: ``"relu"``, or ``"add.Tensor"`` with its overload."""
    if target is getitem:
        return "getitem"
    return str(target).removeprefix("aten.").removesuffix(".default")


@lru_cache(maxsize=1 << 10)
def allowed(name: str) -> bool:
    """Tell whether a file may hold an operation.

    ATen has many by the same name. Only those are allowed that compute tensors from tensors:
    others work on Python's numbers, strings and lists, and check them less.

    Examples
    --------
    >>> from skcompress.deployment.file.operations import allowed
    >>> allowed("add.Tensor"), allowed("from_file"), allowed("add.out"), allowed("add.str")
    (True, False, False, False)
    """
    base, _, overload = name.partition(".")
    if base not in ALLOWED or name in _REFUSED:
        return False
    if base == "getitem":
        return not overload
    packet = getattr(torch.ops.aten, base)
    if (overload or "default") not in packet.overloads():
        return False
    schema = getattr(packet, overload or "default")._schema
    given = [str(a.type) for a in schema.arguments if not a.kwarg_only]
    returned = {str(r.type) for r in schema.returns}
    outputs = any(a.is_out for a in schema.arguments)
    reads = base in MAKERS or any("Tensor" in kind for kind in given)
    elsewhere = any("Device" in kind for kind in given)
    return reads and not outputs and not elsewhere and set() < returned <= _TENSORS


def accepts(name: str, args: list[Any], kwargs: dict[str, Any]) -> bool:
    """Tell whether arguments are such as ATen does not look at again.

    To it, types of numbers and places are integers like any other.

    Parameters
    ----------
    name : str
        Of an allowed operation.
    args, kwargs : list and dict
        As parsed: types are torch's, and what is known only when it runs is callable.

    Examples
    --------
    >>> import torch
    >>> from skcompress.deployment.file.operations import accepts
    >>> accepts("to.dtype", [None, torch.float32], {}), accepts("to.dtype", [None, 99], {})
    (True, False)
    """
    base, _, overload = name.partition(".")
    if base == "getitem":
        return True
    known = getattr(getattr(torch.ops.aten, base), overload or "default")._schema.arguments
    named = {argument.name: argument for argument in known}
    given = [*zip(known, args, strict=False)]
    given += [(named[key], value) for key, value in kwargs.items() if key in named]
    return all(_fits(argument, value) for argument, value in given)


def _fits(argument: Any, value: Any) -> bool:
    kind = str(argument.real_type)
    if value is None:
        return True
    if "ScalarType" in kind:
        return isinstance(value, torch.dtype)
    if argument.name == "scale_factors" or argument.name.startswith("scales"):
        scales = value if isinstance(value, list) else [value]
        least, most = _SCALES
        return all(type(s) is float and least <= s <= most for s in scales)
    return not any(place in kind for place in _PLACES)


def function(name: str) -> Callable:
    """Return what runs an allowed operation."""
    base, _, overload = name.partition(".")
    if base in _BY_PYTHON:
        return _BY_PYTHON[base]
    return getattr(getattr(torch.ops.aten, base), overload or "default")


def kept_settings(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Drop the keywords of an operation that say where and how, and not what, it computes."""
    return {name: value for name, value in kwargs.items() if name not in _DROPPED}
