"""What can be known of a module and a criterion before any training."""

import inspect
from collections.abc import Callable

import numpy as np
from skorch import NeuralNet

from ..activations import example_inputs, first_rows, visit_inputs
from ..training.loop import Data, evenly_spaced
from .criteria import CRITERIA, Criterion, named, score
from .equivalence import try_removal
from .granularity import ChooseUnits
from .obs import check_layers

# Rows that a criterion of the user's own is tried on: some of every class, and soon done.
TRIAL_ROWS = 100


def check_criterion(criterion: str | Criterion, net: NeuralNet, data: Data) -> None:
    """Try whether a criterion can score the weights of a net that is not trained yet.

    Raises
    ------
    ValueError
        If the module is not one that the criterion can look at, or if a function returns
        anything but scores.
    TypeError
        If a function does not take the arguments of a criterion.
    """
    criterion = named(criterion)
    if criterion == "obs":
        check_layers(net, data)
    elif criterion in ("activation", "wanda"):
        visit_inputs(net, first_rows(data), lambda *_: None)
    elif criterion == "fisher":
        _check_single_row(net, data)
    elif callable(criterion):
        _check_arguments(criterion)
        score(criterion, net, evenly_spaced(data, TRIAL_ROWS))


def _check_arguments(criterion: Callable) -> None:
    try:
        inspect.signature(criterion).bind("net", "X", "y", "sample_weight")
    except TypeError as error:
        raise TypeError(
            f"A criterion is called as criterion(net, X, y, sample_weight); {criterion!r} does not"
            f" take these: {error}."
        ) from error


def _check_single_row(net: NeuralNet, data: Data) -> None:
    """Try a batch of one row: a module that squeezes its output may lose the rows' dimension."""
    rows = Data(data.X, data.y, data.sample_weight).take(np.arange(1))
    try:
        # Some losses fail only when they are differentiated.
        CRITERIA["fisher"](net, rows.X, rows.y, rows.sample_weight)
    except Warning:  # the user's filters turned it into an error
        raise
    except Exception as error:  # whatever the user's forward or loss raises is the reason
        raise ValueError(
            f"criterion='fisher' takes rows one by one, and {type(net.module_).__name__} or its"
            f" loss fails on a batch of one: {error}. Does forward squeeze the dimension of the"
            " rows? Write x.squeeze(-1) for x.squeeze(), or use criterion='tempered-fisher'."
        ) from error


def check_removal(net: NeuralNet, data: Data, choose: ChooseUnits) -> None:
    """Remove units from copies of a module in several ways, to see that any can leave.

    Raises
    ------
    ValueError
        If the module fails or computes something else without some of them; where one layer is
        enough for that, the message names it.
    """
    args, kwargs = example_inputs(net, data)
    for masks in choose.trials():
        try:
            try_removal(net.module_, choose.units, choose.spread(masks), args, kwargs)
        except ValueError:
            for name, mask in masks.items():
                alive = choose.spread({name: mask})
                try_removal(net.module_, choose.units, alive, args, kwargs)
            raise
