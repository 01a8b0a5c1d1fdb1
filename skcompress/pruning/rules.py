"""How operations pass units on: one rule per kind of operation.

A rule ``(coupling, operation name, arguments, output)`` couples or pins labels and returns the
labels of the output. An operation without a rule pins what enters it. Rules that only move
elements about perform the operation itself on the labels.
"""

import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .coupling import NONE, Coupling, Labelled, along, nothing, spread, varies

Rule = Callable[[Coupling, str, list[Any], Any], Any]

MIXED = "its units are mixed with other dimensions by {}"
# Weights of attention whose queries, keys and values have widths of their own.
SEPARATE = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
OUTSIDE = "its inputs are not units of a layer"


def linear(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    """Couple the columns with the input, and give the output the labels of the rows."""
    x, weight, bias = [*args, None][:3]
    if weight.name is None or weight.labels.dim() != 2:
        return other(c, name, args, out)
    if weight.name.endswith(SEPARATE):
        c.unknown[weight.name] = "attention with kdim or vdim needs all of its heads"
        return other(c, name, [x], out)
    inputs = along(c, x.labels, -1, MIXED.format(name))
    c.couple(c.slot(weight, 1, consumer=True), inputs, OUTSIDE)
    rows = c.slot(weight, 0)
    if bias is not None:
        c.couple(rows, bias.labels, "its bias is not a vector")
    return spread(rows, -1, out.shape)


def convolution(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    """Couple channels; those of a depthwise convolution pass through it."""
    x, weight, bias = [*args, None][:3]
    if weight.name is None or x.labels.dim() != weight.labels.dim():
        return other(c, name, args, out)
    transposed = "transpose" in name
    groups = args[6] if len(args) > 6 else 1
    inputs = along(c, x.labels, 1, MIXED.format(name))
    rows = c.slot(weight, 1 if transposed else 0)
    if groups == 1:
        columns = c.slot(weight, 0 if transposed else 1, consumer=True)
        c.couple(columns, inputs, OUTSIDE)
    elif groups == len(inputs) == len(rows) and not transposed:
        c.couple(rows, inputs, OUTSIDE)
    else:
        c.pin(torch.cat([inputs, rows]), "a grouped convolution needs its channels")
        # The rows of a transposed one are those of a single group.
        return nothing(out.shape)
    if bias is not None:
        c.couple(rows, bias.labels, "its bias is not a vector")
    return spread(rows, 1, out.shape)


def batch_norm(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    """Couple what belongs to each channel."""
    x, *vectors = args[:5]
    channels = along(c, x.labels, 1, MIXED.format(name))
    for vector in vectors:
        # A PReLU may have one slope for all channels.
        if vector is not None and len(vector.labels) == len(channels):
            c.couple(vector.labels, channels, f"{name} reads inputs that stay")
    return x.labels


def recurrent(c: Coupling, name: str, args: list[Any], out: Any) -> list[Tensor]:
    """Couple the gates of each hidden unit, and each layer with the one that reads it."""
    x, states, weights, biases, n_layers, *_, bidirectional, _ = args
    packed = not isinstance(biases, bool)
    if packed or len(weights) != n_layers * (1 + bidirectional) * (2 + 2 * biases):
        return other(c, name, args, out)
    directions, step = 1 + bidirectional, 2 + 2 * biases
    inputs = along(c, x.labels, -1, MIXED.format(name))
    hidden = []
    for start in range(0, len(weights), step):
        w_ih, w_hh, *vectors = weights[start : start + step]
        units = c.slot(w_hh, 1, consumer=True)
        c.couple(c.slot(w_ih, 1, consumer=True), inputs, OUTSIDE)
        for rows in (c.slot(w_ih, 0), c.slot(w_hh, 0), *(v.labels for v in vectors)):
            # The gates of a unit stand one block after the other.
            c.couple(rows, units.repeat(len(rows) // len(units)), "its gates are not aligned")
        hidden.append(units)
        if len(hidden) % directions == 0:
            inputs = torch.cat(hidden[-directions:])
    if not any(h[0] is hidden[0] for h in c.siblings):
        c.siblings.append(hidden)
    initial: Any = states if isinstance(states, (list, tuple)) else [states]
    _pin_states(c, initial, hidden)
    last = torch.stack([spread(units, -1, out[1].shape[1:]) for units in hidden])
    return [spread(inputs, -1, out[0].shape)] + [last] * (len(out) - 1)


def _pin_states(c: Coupling, states: list[Labelled], hidden: list[Tensor]) -> None:
    """Keep all hidden units where they start from anything but zeros."""
    for state in states:
        if state.value.any():
            for units in (state.labels, *hidden):
                c.pin(units, "a recurrent layer is given its initial state")


def attention(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    """Join all that a product of activations contracts: a head of attention is one unit."""
    start, stop = {"scaled_dot_product_attention": (0, 3), "baddbmm": (1, 3)}.get(name, (0, 2))
    operands = args[start:stop]
    if any(a.name is not None or a.labels.dim() < 3 for a in operands):
        return other(c, name, args, out)
    lead = out.shape[:-2]
    flat = [a.labels.expand(*lead, *a.labels.shape[-2:]).flatten(-2) for a in operands]
    joined = torch.cat(flat, dim=-1)
    if (joined == NONE).all():
        return nothing(out.shape)
    first = joined.amax(-1, keepdim=True)
    c.couple(joined, first.expand_as(joined), "it is multiplied with something that stays")
    return first.unsqueeze(-1).expand(out.shape)


def elementwise(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    """Couple operands; one that has a single value for all units of another stays."""
    operands = [a for a in args if isinstance(a, Labelled)]
    # Labels that vary tell units apart; among those, the operand that is not broadcast.
    main = max(operands, key=lambda a: (len(a.labels.unique()) > 1, a.labels.numel()))
    labels = main.labels.expand(out.shape)
    for a in operands:
        if a is main:
            continue
        theirs = a.labels
        dims = [d for d in range(-theirs.dim(), 0) if theirs.shape[d] > 1 and varies(labels, d)]
        if not dims:
            c.pin(theirs, f"{name} applies it to all units of a layer alike")
            continue
        if a.name is not None and (theirs == NONE).all() and len(dims) == 1:
            theirs = spread(c.slot(a, dims[0] + theirs.dim()), dims[0], theirs.shape)
        c.couple(theirs.expand(out.shape), labels, f"{name} joins it with something that stays")
    return labels


def reduction(c: Coupling, name: str, args: list[Any], out: Any) -> Any:
    """Let pass what is reduced within a unit."""
    labels, dims = args[0].labels, args[1] if len(args) > 1 else None
    if isinstance(dims, Labelled):
        return elementwise(c, name, args, out)
    dims = [dims] if isinstance(dims, int) else list(dims or range(labels.dim()))
    if any(varies(labels, d) for d in dims):
        return other(c, name, args, out)
    outputs = [out] if isinstance(out, Tensor) else out
    kept = labels.amax(dims, keepdim=True).reshape(outputs[0].shape)
    return kept if isinstance(out, Tensor) else [kept, *(nothing(o.shape) for o in out[1:])]


def softmax(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    """Let pass what is normalized within a unit."""
    if varies(args[0].labels, args[1]):
        return other(c, name, args, out)
    return args[0].labels


def pooling(c: Coupling, name: str, args: list[Any], out: Any) -> Any:
    """Let channels pass."""
    outputs = [out] if isinstance(out, Tensor) else out
    dimension = re.search(r"([123])d", name)
    assert dimension is not None
    if args[0].labels.dim() != 2 + int(dimension[1]):
        return other(c, name, args, out)
    channels = along(c, args[0].labels, 1, MIXED.format(name))
    labels = [spread(channels, 1, o.shape) for o in outputs]
    return labels[0] if isinstance(out, Tensor) else labels


def indexing(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    """Move labels as the operation moves elements; the indices are values."""
    x, *rest = args
    function = getattr(torch.ops.aten, name)
    values = torch.utils._pytree.tree_map(
        lambda v: v.value.cpu() if isinstance(v, Labelled) else v,
        rest,
        is_leaf=lambda v: isinstance(v, Labelled),
    )
    return function(x.labels, *values)


def other(c: Coupling, name: str, args: list[Any], out: Any) -> Any:
    """Pin what enters an operation that is not understood."""
    for a in tree_leaves(args, is_leaf=lambda v: isinstance(v, Labelled)):
        if isinstance(a, Labelled):
            c.pin(a.labels, f"it passes through {name}, which needs all of it")
            if a.name is not None:
                c.unknown[a.name] = f"it is used by {name} in a way that is not understood"
    tensors = isinstance(out, (tuple, list))
    return [nothing(o.shape) for o in out] if tensors else nothing(out.shape)


_MOVING = (
    "view reshape _unsafe_view flatten unflatten transpose permute squeeze unsqueeze select slice"
    " expand contiguous clone chunk split split_with_sizes unbind cat stack flip repeat t movedim"
    " narrow numpy_T mT swapaxes alias detach concat hstack vstack ravel tile"
)
MOVES = frozenset(_MOVING.split())
_KINDS: list[tuple[Rule, str]] = [
    (linear, "linear"),
    (convolution, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    (batch_norm, "batch_norm prelu"),
    (recurrent, "lstm gru rnn_tanh rnn_relu"),
    (attention, "scaled_dot_product_attention matmul bmm baddbmm"),
    (
        elementwise,
        "add sub mul div maximum minimum masked_fill add_ sub_ mul_ div_ where rsub"
        " lerp addcmul relu relu_ relu6 gelu tanh tanh_ sigmoid sigmoid_ silu silu_ elu"
        " elu_ leaky_relu leaky_relu_ hardtanh hardtanh_ hardswish hardswish_"
        " hardsigmoid softplus mish selu celu dropout dropout_ feature_dropout"
        " alpha_dropout clamp clamp_min clamp_max neg exp log abs square pow sqrt rsqrt"
        " log_sigmoid sin cos to _to_copy erf softshrink hardshrink threshold clip rrelu"
        " true_divide reciprocal expm1 log1p nan_to_num sign lift_fresh_copy detach_",
    ),
    (reduction, "mean sum amax amin max min logsumexp"),
    (indexing, "index index_select gather"),
    (softmax, "softmax log_softmax _softmax _log_softmax"),
    (
        pooling,
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d"
        " adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d"
        " adaptive_max_pool2d adaptive_max_pool3d max_pool2d_with_indices"
        " upsample_nearest2d upsample_bilinear2d upsample_nearest1d",
    ),
]
RULES: dict[str, Rule] = {name: rule for rule, names in _KINDS for name in names.split()}


def kind(target: Any) -> str:
    """Name of an operation without its overload, such as ``"linear"``."""
    if target is operator.getitem:
        return "getitem"
    return str(target).removeprefix("aten.").split(".")[0]
