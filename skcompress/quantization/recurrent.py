"""Recurrent layers step by step, over any product of inputs and weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
State = tuple[Tensor, ...]
Cell = Callable[[Tensor, Tensor, State], State]


def lstm_cell(inputs: Tensor, hidden: Tensor, state: State) -> State:
    """Return the next hidden and cell state; see ``torch.nn.LSTM`` for the formulas."""
    i, f, g, o = (inputs + hidden).chunk(4, -1)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def gru_cell(inputs: Tensor, hidden: Tensor, state: State) -> State:
    """Return the next hidden state; see ``torch.nn.GRU`` for the formulas."""
    (r, z, n), (hr, hz, hn) = inputs.chunk(3, -1), hidden.chunk(3, -1)
    z = (z + hz).sigmoid()
    new = (n + (r + hr).sigmoid() * hn).tanh()
    return (new + z * (state[0] - new),)


def tanh_cell(inputs: Tensor, hidden: Tensor, state: State) -> State:
    """Return the next hidden state; see ``torch.nn.RNN`` for the formulas."""
    return ((inputs + hidden).tanh(),)


def relu_cell(inputs: Tensor, hidden: Tensor, state: State) -> State:
    """Return the next hidden state; see ``torch.nn.RNN`` for the formulas."""
    return ((inputs + hidden).relu(),)


RECURRENT: dict[Callable, Cell] = {
    torch.lstm: lstm_cell,
    torch.gru: gru_cell,
    torch.rnn_tanh: tanh_cell,
    torch.rnn_relu: relu_cell,
}


def run_recurrent(
    cell: Cell,
    product: Product,
    x: Tensor,
    states: Tensor | tuple[Tensor, ...],
    weights: list[Tensor],
    biases: bool,
    n_layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """Compute what torch's recurrent functions do, with `product` in place of ``linear``.

    Parameters
    ----------
    cell : callable
        ``cell(inputs, hidden, state)`` gives the next state from the two products.
    product : callable
        ``product(x, weight, bias)``.
    x, states, weights, biases, n_layers, dropout, training, bidirectional, batch_first
        As ``torch.lstm``, ``torch.gru`` and the like take them, in evaluation mode.
    """
    steps = x.transpose(0, 1) if batch_first else x
    first = states if isinstance(states, (tuple, list)) else (states,)
    directions = 1 + bidirectional
    size = len(weights) // (n_layers * directions)
    last = []
    for layer in range(n_layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            part = weights[index * size : (index + 1) * size]
            state = tuple(s[index] for s in first)
            out, state = _run(cell, product, steps, state, part, biases, reverse=direction == 1)
            outputs.append(out)
            last.append(state)
        steps = torch.cat(outputs, -1)
    out = steps.transpose(0, 1) if batch_first else steps
    return out, *(torch.stack(parts) for parts in zip(*last, strict=True))


def _run(
    cell: Cell,
    product: Product,
    steps: Tensor,
    state: State,
    weights: list[Tensor],
    biases: bool,
    *,
    reverse: bool,
) -> tuple[Tensor, State]:
    """Run one layer in one direction over inputs of shape (n_steps, ...)."""
    w_ih, w_hh = weights[:2]
    b_ih, b_hh = weights[2:4] if biases else (None, None)
    # An LSTM may project its hidden state.
    w_hr = weights[-1] if len(weights) in (3, 5) else None
    inputs = product(steps, w_ih, b_ih)
    outputs = []
    for step in inputs.flip(0) if reverse else inputs:
        state = cell(step, product(state[0], w_hh, b_hh), state)
        if w_hr is not None:
            state = product(state[0], w_hr, None), *state[1:]
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if reverse else outputs), state
