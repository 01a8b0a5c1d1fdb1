"""How operations pass units on: one rule per kind of operation.

A rule ``(coupling, operation name, arguments, output)`` couples or pins labels and returns the
labels of the output. An operation without a rule pins what enters it. Rules that only move
elements about perform the operation itself on the labels.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .coupling import NONE, Coupling, Labelled, along, nothing, spread, varies

Rule = Callable[[Coupling, str, list[Any], Any], Any]

MIXED = "its units are mixed with other dimensions by {}"


def linear(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    x, weight, bias = [*args, None][:3]
    if weight.name is None:
        return other(c, name, args, out)
    inputs = along(c, x.labels, -1, MIXED.format(name))
    c.couple(c.slot(weight, 1, consumer=True), inputs, "its inputs are not units of a layer")
    rows = c.slot(weight, 0)
    if bias is not None:
        c.couple(rows, bias.labels, "its bias is not a vector")
    return spread(rows, -1, out.shape)


def convolution(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    x, weight, bias = [*args, None][:3]
    transposed = "transpose" in name
    groups = args[6] if len(args) > 6 else 1
    inputs = along(c, x.labels, 1, MIXED.format(name))
    rows = c.slot(weight, 1 if transposed else 0)
    if groups == 1:
        columns = c.slot(weight, 0 if transposed else 1, consumer=True)
        c.couple(columns, inputs, "its inputs are not units of a layer")
    elif groups == len(inputs) == len(rows) and not transposed:
        c.couple(rows, inputs, "its inputs are not units of a layer")
    else:
        c.pin(torch.cat([inputs, rows]), "a grouped convolution needs its channels")
    if bias is not None:
        c.couple(rows, bias.labels, "its bias is not a vector")
    return spread(rows, 1, out.shape)


def batch_norm(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    x, *vectors = args[:5]
    channels = along(c, x.labels, 1, MIXED.format(name))
    for vector in vectors:
        if vector is not None:
            c.couple(vector.labels, channels, "a batch norm of the network's input reads it")
    return x.labels


def recurrent(c: Coupling, name: str, args: list[Any], out: Any) -> list[Tensor]:
    x, states, weights, biases, n_layers, *_, bidirectional, _ = args
    directions, step = 1 + bidirectional, 2 + 2 * biases
    if len(weights) != n_layers * directions * step:
        return other(c, name, args, out)
    inputs = along(c, x.labels, -1, MIXED.format(name))
    hidden = []
    for start in range(0, len(weights), step):
        w_ih, w_hh, *vectors = weights[start : start + step]
        units = c.slot(w_hh, 1, consumer=True)
        c.couple(c.slot(w_ih, 1, consumer=True), inputs, "its inputs are not units of a layer")
        for rows in (c.slot(w_ih, 0), c.slot(w_hh, 0), *(v.labels for v in vectors)):
            # The gates of a unit stand one block after the other.
            c.couple(rows, units.repeat(len(rows) // len(units)), "its gates are not aligned")
        hidden.append(units)
        if len(hidden) % directions == 0:
            inputs = torch.cat(hidden[-directions:])
    c.siblings.append(hidden)
    for state in states if isinstance(states, (list, tuple)) else [states]:
        c.pin(state.labels, "it is an initial state of a recurrent layer")
    last = [spread(u, -1, o.shape[1:]) for u in hidden for o in out[1:2]]
    return [spread(inputs, -1, out[0].shape)] + [torch.stack(last)] * (len(out) - 1)


def attention(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    """Join all that a product of activations contracts: a head of attention is one unit."""
    operands = [a for a in args[: 3 if "attention" in name else 2]]
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
    """Couple operands; what has no units passes where it has one value for all of them."""
    operands = [a for a in args if isinstance(a, Labelled)]
    labelled = [a for a in operands if (a.labels != NONE).any()]
    if not labelled:
        return nothing(out.shape)
    main = labelled[0].labels.expand(out.shape)
    for a in operands:
        labels = a.labels
        if (labels == NONE).all():
            dims = [d for d in range(-labels.dim(), 0) if labels.shape[d] > 1 and varies(main, d)]
            if a.name is not None and len(dims) == 1:
                labels = spread(c.slot(a, dims[0] + labels.dim()), dims[0], labels.shape)
            elif not dims:
                continue
        c.couple(labels.expand(out.shape), main, f"{name} joins it with something that stays")
    return main


def reduction(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    labels, dims = args[0].labels, args[1] if len(args) > 1 else None
    dims = list(range(labels.dim())) if not dims and dims != 0 else dims
    dims = [dims] if isinstance(dims, int) else list(dims)
    if any(varies(labels, d) for d in dims):
        return other(c, name, args, out)
    return labels.amax(dims, keepdim=True).reshape(out.shape)


def softmax(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    if varies(args[0].labels, args[1]):
        return other(c, name, args, out)
    return args[0].labels


def pooling(c: Coupling, name: str, args: list[Any], out: Any) -> Any:
    channels = along(c, args[0].labels, 1, MIXED.format(name))
    if isinstance(out, (tuple, list)):
        return [spread(channels, 1, o.shape) for o in out]
    return spread(channels, 1, out.shape)


def same(c: Coupling, name: str, args: list[Any], out: Tensor) -> Tensor:
    return args[0].labels


def other(c: Coupling, name: str, args: list[Any], out: Any) -> Any:
    """Pin what enters an operation that is not understood."""
    for a in torch.utils._pytree.tree_leaves(args, is_leaf=lambda v: isinstance(v, Labelled)):
        if isinstance(a, Labelled):
            c.pin(a.labels, f"it passes through {name}, which needs all of it")
    tensors = isinstance(out, (tuple, list))
    return [nothing(o.shape) for o in out] if tensors else nothing(out.shape)


MOVES = frozenset(
    "view reshape _unsafe_view flatten unflatten transpose permute squeeze unsqueeze select slice"
    " expand contiguous clone chunk split split_with_sizes unbind cat stack flip repeat t movedim"
    " narrow numpy_T roll alias detach".split()
)
_KINDS: list[tuple[Rule, str]] = [
    (linear, "linear"),
    (convolution, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    (batch_norm, "batch_norm"),
    (recurrent, "lstm gru rnn_tanh rnn_relu"),
    (attention, "scaled_dot_product_attention matmul bmm"),
    (elementwise, "add sub mul div maximum minimum masked_fill add_ sub_ mul_ div_ where rsub"),
    (reduction, "mean sum amax amin"),
    (softmax, "softmax log_softmax _softmax _log_softmax"),
    (pooling, "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d"
              " adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d"
              " adaptive_max_pool2d adaptive_max_pool3d max_pool2d_with_indices"
              " upsample_nearest2d upsample_bilinear2d upsample_nearest1d"),
    (same, "relu relu_ relu6 gelu tanh tanh_ sigmoid sigmoid_ silu silu_ elu elu_ leaky_relu"
           " leaky_relu_ hardtanh hardtanh_ hardswish hardswish_ hardsigmoid softplus mish selu"
           " celu dropout dropout_ feature_dropout alpha_dropout clamp clamp_min clamp_max neg"
           " exp log abs square pow sqrt rsqrt log_sigmoid sin cos to _to_copy erf softsign"
           " tanhshrink softshrink hardshrink threshold"),
]
RULES: dict[str, Rule] = {name: rule for rule, names in _KINDS for name in names.split()}


def kind(target: Any) -> str:
    """Name of an operation without its overload, such as ``"linear"``."""
    if target is operator.getitem:
        return "getitem"
    return str(target).removeprefix("aten.").split(".")[0]
