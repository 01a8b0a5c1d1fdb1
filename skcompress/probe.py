"""What a net that is not trained yet tells about the data: whether it takes these rows."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNet, NeuralNetBinaryClassifier
from skorch.dataset import get_len, unpack_data
from torch import Tensor

from .inputs import take_rows
from .training.iterators import array_iterators
from .training.loop import Data, batches
from .training.shapes import set_shapes


def initialized_probe(net: NeuralNet, X: Any, y: np.ndarray) -> NeuralNet:
    """Build an untrained copy of `net`, as wide as the data, to learn its types and shapes."""
    probe = clone(net)
    set_shapes(probe, X, y)
    # Not by set_params, which fails on a net whose callbacks are disabled already.
    probe.callbacks, probe.verbose = "disable", 0
    return probe.initialize()


def check_batch_size(net: NeuralNet) -> None:
    """Refuse batches that hold no row; -1 stands for all rows."""
    for prefix in ("", "iterator_train__", "iterator_valid__"):
        size = net.get_params(deep=False).get(prefix + "batch_size")
        if isinstance(size, Integral) and size < 1 and size != -1:
            raise ValueError(
                f"The net's {prefix}batch_size is {size}; it must be at least 1, or -1 for all"
                " rows in one batch."
            )


def check_loss(probe: NeuralNet, data: Data) -> None:
    """Try the net's loss on two rows before any training.

    Raises
    ------
    ValueError
        If it fails on the module's outputs and these targets, or is not one number.
    """
    rows = data.take(np.arange(min(2, len(data.y))))
    Xi, yi = unpack_data(next(batches(probe, rows)))
    probe._set_training(False)
    with torch.no_grad():
        y_pred = probe.infer(Xi)
        try:
            loss = probe.get_loss(y_pred, yi, X=Xi, training=False)
        except Warning:  # the user's filters turned it into an error
            raise
        except Exception as error:  # whatever the user's criterion raises is the reason
            raise ValueError(
                f"The loss of {type(probe).__name__} fails: its criterion"
                f" {type(probe.criterion_).__name__} got the module's outputs and targets of"
                f" shape {tuple(yi.shape)} and {yi.dtype}: {error}. Classifiers take"
                " CrossEntropyLoss or NLLLoss, binary ones BCEWithLogitsLoss, regressors MSELoss or"
                " its like."
            ) from error
    if loss.numel() != 1:
        raise ValueError(
            f"The loss of {type(probe).__name__} is a tensor of shape {tuple(loss.shape)}; training"
            " needs one number. Leave criterion__reduction at 'mean', or average in get_loss."
        )


def output_shape(probe: NeuralNet, X: Any) -> tuple[int, ...]:
    """Run two rows through a net before any training.

    Raises
    ------
    ValueError
        If the module does not take such rows.
    """
    n_rows = min(2, get_len(X))
    module = type(probe.module_).__name__
    outputs: list[Any] = []
    handle = probe.module_.register_forward_hook(lambda m, args, output: outputs.append(output))
    try:
        with array_iterators(probe):
            output = probe.forward(take_rows(X, np.arange(n_rows)))
    except Warning:  # the user's filters turned it into an error
        raise
    except Exception as error:  # whatever the user's forward raises is the reason
        if outputs and not isinstance(outputs[0], Tensor | tuple):
            raise ValueError(
                f"The module {module} gives a {type(outputs[0]).__name__}. Return a tensor, or a"
                " tuple whose first entry is the prediction."
            ) from error
        raise ValueError(
            f"The module {module} does not take X of {describe(X)}: {error}. {advice(error, X)}"
        ) from error
    finally:
        handle.remove()
    output = output[0] if isinstance(output, tuple) else output
    if output.dim() == 0 or len(output) != n_rows:
        raise ValueError(
            f"The module {module} gives an output of shape {tuple(output.shape)} for {n_rows}"
            " rows of X; the first dimension must be that of the rows. Recurrent layers need"
            " batch_first=True."
        )
    return tuple(output.shape)


# Torch has no types of errors for these, so that words of its messages have to tell.
_TYPE_WORDS = ("dtype", "scalar type", "type (", "must be long", "not implemented for")


def advice(error: Exception, X: Any) -> str:
    """Say what to change, by the reason for which a module refused its inputs."""
    text = str(error)
    if isinstance(error, TypeError) and "argument" in text:
        return (
            "The names in a dict are those of the arguments of forward; an array is its first"
            " argument."
        )
    if any(word in text for word in _TYPE_WORDS):
        return _type_advice(X)
    if isinstance(error, IndexError) or "out of range" in text:
        return (
            "An index in X is larger than what it points into: check the num_embeddings of the"
            " module's embeddings, and the positions that forward selects."
        )
    return "Check the widths of its first and last layer, or let ShapeSetter set them in fit."


def _type_advice(X: Any) -> str:
    if not isinstance(X, Mapping):
        return (
            "Integers of a single array become floats unless the module has an embedding: where"
            " forward needs another type, convert there, with X.long() or X.to(self.weight.dtype),"
            " or pass a dict, in which integers and booleans stay what they are."
        )
    kinds = {"quantities to float32": "biu", "indices to int64": "f"}
    casts = [
        f"cast those of {', '.join(names)} that are {what}"
        for what, kind in kinds.items()
        if (names := [f"{n!r} ({x.dtype})" for n, x in X.items() if x.dtype.kind in kind])
    ]
    return (
        "In a dict, integers and booleans stay what they are, and floats take the module's type:"
        f" {', and '.join(casts)}."
    )


def describe(X: Any) -> str:
    """Say what the shape of inputs is, and what their type."""
    if isinstance(X, Mapping):
        return ", ".join(f"{name} of {describe(value)}" for name, value in X.items())
    return f"shape {X.shape} and dtype {getattr(X, 'dtype', type(X).__name__)}"


def check_split(probe: NeuralNet, data: Data) -> None:
    """Refuse rows that the net's internal validation split cannot divide into batches."""
    try:
        train, _ = probe.get_split_datasets(data.inputs, data.y)
    except ValueError as error:
        raise ValueError(
            f"The net's train_split cannot hold out validation rows from {len(data.y)} rows:"
            f" {error} Set train_split=None in the net, or give more rows."
        ) from error
    check_last_batch(probe, data.X, get_len(train))


def check_last_batch(probe: NeuralNet, X: Any, n_rows: int) -> None:
    """Refuse batches that leave no row, or one alone where the module cannot train on that.

    Raises
    ------
    ValueError
        If the module cannot train on the last batch of `n_rows` rows, as where batch
        normalization has no variance, or if there is no batch.
    """
    settings = probe.get_params_for("iterator_train")
    size = settings.get("batch_size", probe.batch_size)
    left = n_rows if size == -1 else n_rows % size
    if settings.get("drop_last", False):
        if n_rows < size:
            raise ValueError(
                f"The net's training iterator makes no batch of {n_rows} rows: they are fewer than"
                f" its batch_size of {size}, and iterator_train__drop_last leaves them out. Set a"
                " smaller batch_size, or leave iterator_train__drop_last out."
            )
        return
    if left != 1:
        return
    try:
        # The one row is only tried: what the probe learns from it is thrown away.
        probe.forward(take_rows(X, np.arange(1)), training=True)
    except Warning:  # the user's filters turned it into an error
        raise
    except Exception as error:  # whatever the user's forward raises is the reason
        raise ValueError(
            f"{n_rows} training rows in batches of {size} leave a last batch of one row, which"
            f" {type(probe.module_).__name__} cannot train on: {str(error).rstrip('.')}. Set"
            " another batch_size, or iterator_train__drop_last=True, in the net."
        ) from error


def shape_targets(y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Give regression targets the shape of the module's outputs.

    Raises
    ------
    ValueError
        If they hold another number of values per row.
    """
    if y.shape[1:] == shape[1:] or (y.ndim == 1 and shape[1:] == (1,)):
        return y.reshape(len(y), *shape[1:])
    raise ValueError(
        f"The module gives outputs of shape {('n_samples', *shape[1:])}, but y has shape"
        f" {y.shape}. Change the width of the last layer, or let ShapeSetter set it in fit."
    )


def check_outputs(net: NeuralNet, shape: tuple[int, ...], n_classes: int) -> None:
    """Refuse a classifier whose number of outputs is not the number of classes."""
    if isinstance(net, NeuralNetBinaryClassifier):
        if n_classes != 2:
            raise ValueError(
                "Only binary classification is supported by NeuralNetBinaryClassifier. The type"
                f" of the target is multiclass: got {n_classes} classes. Use"
                " NeuralNetClassifier with one output per class."
            )
    elif len(shape) != 2 or shape[1] != n_classes:
        raise ValueError(
            f"The module gives outputs of shape {('n_samples', *shape[1:])}, but y has"
            f" {n_classes} classes, which take ('n_samples', {n_classes}). Change the width of"
            " the last layer, or let ShapeSetter set it in fit."
        )
