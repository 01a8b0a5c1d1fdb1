"""Recurrent layers in ONNX: its own operators, or a loop where they cannot say what is computed."""

from typing import Any

import torch
from onnx import helper
from torch import Tensor
from torch.fx import Node

from .integers import linear_of_integers, rounds
from .weights import value, weight, write_codes
from .writer import TYPES, Stored, Writer, dtype_of

# Where ONNX has torch's gates: input, forget, cell, output; reset, update, new.
GATES = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2], "rnn_tanh": [0], "rnn_relu": [0]}


def recurrent(
    w: Writer, node: Node, x: str, states: Any, weights: Any, biases: Any, *settings: Any
) -> list[str]:
    """Write a recurrent layer, or several on top of each other."""
    if not isinstance(biases, bool):
        raise ValueError(
            "packed sequences have lengths that the graph cannot follow. Pad them, and read the"
            " state of each row's last step by its index"
        )
    n_layers, _, _, bidirectional, batch_first = settings
    directions = 1 + bidirectional
    step = len(weights) // (n_layers * directions)
    first = states if isinstance(states, list) else [states]
    steps = w.add("Transpose", x, perm=[1, 0, 2]) if batch_first else x
    last: list[list[str]] = []
    for start in range(0, n_layers * directions, directions):
        parts = [weights[i * step : (i + 1) * step] for i in range(start, start + directions)]
        begin = [_layer(w, state, start, directions) for state in first]
        # Its own operators know neither projections nor, in onnxruntime, double precision.
        double = parts[0][0].tensor.dtype == torch.float64
        loops = rounds(w, parts[0][0]) or step % 2 == 1 or double
        write = _loops if loops else _operator
        steps, *ends = write(w, node, steps, begin, parts, biases)
        last.append(ends)
    out = w.add("Transpose", steps, perm=[1, 0, 2]) if batch_first else steps
    joined = [
        w.add("Concat", *e, axis=0) if n_layers > 1 else e[0] for e in zip(*last, strict=True)
    ]
    if directions == 1:
        w.last_states[out] = 1 if batch_first else 0, last[-1][0]
    return [out, *joined]


def _layer(w: Writer, state: Any, start: int, directions: int) -> str | None:
    """Take the initial states of a layer; None for zeros."""
    if state in w.zeros:
        return None
    ends = w.indices([start + directions])
    return w.add("Slice", value(w, state), w.indices([start]), ends, w.indices([0]))


def _operator(
    w: Writer, node: Node, x: str, begin: list, parts: list[list[Stored]], biases: bool
) -> list[str]:
    """Write a layer as ONNX's LSTM, GRU or RNN; return all its outputs and its last states."""
    kind = str(node.target).split(".")[1]
    hidden = parts[0][1].tensor.shape[1]
    order = torch.arange(len(GATES[kind]) * hidden).view(-1, hidden)[GATES[kind]].flatten()
    inputs, states = (_stack(w, [part[i] for part in parts], order) for i in (0, 1))
    vectors = None
    if biases:
        sides = [torch.cat([b.tensor[order] for b in part[2:4]]) for part in parts]
        vectors = w.constant(torch.stack(sides))
    attributes: dict[str, Any] = {"hidden_size": hidden}
    if len(parts) == 2:
        attributes["direction"] = "bidirectional"
    if kind == "gru":
        attributes["linear_before_reset"] = 1
    if kind == "rnn_relu":
        attributes["activations"] = ["Relu"] * len(parts)
    op = kind.split("_")[0].upper()
    n_outputs = 3 if kind == "lstm" else 2
    out, *ends = w.add_many(op, n_outputs, x, inputs, states, vectors, None, *begin, **attributes)
    return [_side_by_side(w, out, len(parts)), *ends]


def _side_by_side(w: Writer, out: str, directions: int) -> str:
    """Lay the outputs of directions next to each other: (steps, rows, directions * hidden)."""
    if directions == 1:
        return w.add("Squeeze", out, w.indices([1]))  # which copies nothing
    turned = w.add("Transpose", out, perm=[0, 2, 1, 3])
    return w.add("Reshape", turned, w.indices([0, 0, -1]))


def _stack(w: Writer, matrices: list[Stored], order: Tensor) -> str:
    """Return the weights of each direction, with their gates in ONNX's order."""
    if not all(m.name in w.codes for m in matrices):
        return w.constant(torch.stack([m.tensor[order] for m in matrices]))
    key = tuple(m.name for m in matrices)  # of which a shared layer asks for more than once
    if key not in w.root.known:
        axes, parts = w.indices([0]), []
        for m in matrices:
            decoded = write_codes(w.root, w.codes[m.name].rows(order), str(m.name))
            parts.append(w.root.add("Unsqueeze", decoded, axes))
        stacked = w.root.add("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]
        w.root.known[key] = stacked
    return w.root.known[key]


def _loops(
    w: Writer, node: Node, x: str, begin: list, parts: list[list[Stored]], biases: bool
) -> list[str]:
    """Write a layer as loops over its steps, for rounded activations and projected states."""
    outputs, ends = [], []
    for direction, part in enumerate(parts):
        start = [_direction(w, s, direction, x, part, i) for i, s in enumerate(begin)]
        out, *last = _loop(w, node, x, start, part, biases, backward=direction)
        outputs.append(out)
        ends.append([w.add("Unsqueeze", state, w.indices([0])) for state in last])
    if len(parts) == 1:
        return [outputs[0], *ends[0]]
    joined = [w.add("Concat", *pair, axis=0) for pair in zip(*ends, strict=True)]
    return [w.add("Concat", *outputs, axis=-1), *joined]


def _direction(
    w: Writer, state: str | None, direction: int, x: str, part: list[Stored], which: int
) -> str:
    """Return the initial state of a direction, of shape (rows, hidden)."""
    if state is not None:
        return w.add("Gather", state, w.indices(direction), axis=0)
    # The hidden state may be projected, the cell state is not.
    size = part[1].tensor.shape[1] if which == 0 else part[1].tensor.shape[0] // 4
    rows = w.add("Shape", x, start=1, end=2)
    shape = w.add("Concat", rows, w.indices([size]), axis=0)
    zero = helper.make_tensor("zero", TYPES[part[0].tensor.dtype], [1], [0])
    return w.add("ConstantOfShape", shape, value=zero)


def _product(w: Writer, x: str, rank: int, matrix: Stored, bias: Any) -> str:
    if rounds(w, matrix):
        return linear_of_integers(w, x, rank, matrix, bias)
    y = w.add("MatMul", x, weight(w, matrix, transpose=True))
    return y if bias is None else w.add("Add", y, value(w, bias))


def _loop(
    w: Writer, node: Node, x: str, begin: list[str], part: list[Stored], biases: bool, backward: int
) -> list[str]:
    """Write one direction; return its outputs, of shape (steps, rows, hidden), and last states."""
    kind = str(node.target).split(".")[1]
    b_ih, b_hh = part[2:4] if biases else (None, None)
    inputs = _product(w, x, 3, part[0], b_ih)
    body = w.body()
    names = [body.name("state") for _ in begin]
    step = body.name("step")
    states = CELLS[kind](body, step, _product(body, names[0], 2, part[1], b_hh), names)
    if len(part) in (3, 5):
        states[0] = _product(body, states[0], 2, part[-1], None)
    output = body.add("Identity", states[0])
    graph = _graph(body, [*names, step], [*states, output], TYPES[dtype_of(node.args[0])])
    *ends, out = w.add_many(
        "Scan", len(begin) + 1, *begin, inputs, body=graph, num_scan_inputs=1,
        scan_input_directions=[backward], scan_output_directions=[backward],
    )  # fmt: skip
    return [out, *ends]


def _graph(body: Writer, inputs: list[str], outputs: list[str], kind: int) -> Any:
    given, made = (
        [helper.make_tensor_value_info(name, kind, None) for name in names]
        for names in (inputs, outputs)
    )
    return helper.make_graph(body.nodes, body.name("body"), given, made)


def _lstm_cell(w: Writer, inputs: str, hidden: str, state: list[str]) -> list[str]:
    """Write the next hidden and cell state; see ``torch.nn.LSTM`` for the formulas."""
    gates = w.add("Add", inputs, hidden)
    i, f, g, o = w.add_many("Split", 4, gates, axis=-1, num_outputs=4)
    kept = w.add("Mul", w.add("Sigmoid", f), state[1])
    cell = w.add("Add", kept, w.add("Mul", w.add("Sigmoid", i), w.add("Tanh", g)))
    return [w.add("Mul", w.add("Sigmoid", o), w.add("Tanh", cell)), cell]


def _gru_cell(w: Writer, inputs: str, hidden: str, state: list[str]) -> list[str]:
    """Write the next hidden state; see ``torch.nn.GRU`` for the formulas."""
    r, z, n = w.add_many("Split", 3, inputs, axis=-1, num_outputs=3)
    hr, hz, hn = w.add_many("Split", 3, hidden, axis=-1, num_outputs=3)
    reset = w.add("Sigmoid", w.add("Add", r, hr))
    update = w.add("Sigmoid", w.add("Add", z, hz))
    new = w.add("Tanh", w.add("Add", n, w.add("Mul", reset, hn)))
    return [w.add("Add", new, w.add("Mul", update, w.add("Sub", state[0], new)))]


def _tanh_cell(w: Writer, inputs: str, hidden: str, state: list[str]) -> list[str]:
    return [w.add("Tanh", w.add("Add", inputs, hidden))]


def _relu_cell(w: Writer, inputs: str, hidden: str, state: list[str]) -> list[str]:
    return [w.add("Relu", w.add("Add", inputs, hidden))]


CELLS = {"lstm": _lstm_cell, "gru": _gru_cell, "rnn_tanh": _tanh_cell, "rnn_relu": _relu_cell}
