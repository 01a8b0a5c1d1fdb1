"""What an object is made of: what pickle would save, and what an estimator has learned."""

import copyreg
from typing import Any

from skorch import NeuralNet
from skorch.dataset import Dataset as ArrayDataset
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

# Datasets that have no other rows than their attributes.
_IN_MEMORY = (TensorDataset, Subset, ArrayDataset)


class UncacheableError(Exception):
    """Raised for what cannot be looked into, or has a result that is not the same again."""


def reduced_parts(value: Any) -> str | list[Any]:
    """Return what pickle would save of an object: parts, or a name in its module.

    Raises
    ------
    UncacheableError
        If there is no way to save it, or if it reads rows from elsewhere.
    """
    if isinstance(value, Dataset) and type(value) not in _IN_MEMORY:
        raise UncacheableError(f"the rows of a {type(value).__name__} may come from elsewhere")
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        reduced = value.__reduce_ex__(2) if reduce is None else reduce(value)
    except Exception as error:  # whatever an object's own method raises
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise UncacheableError(f"a {kind} cannot be looked into") from error
    if isinstance(reduced, str):
        if reduced.endswith("(vectorized)"):
            raise UncacheableError("a function made by numpy.frompyfunc cannot be looked into")
        return reduced
    parts = [*reduced[:3], *(None if it is None else list(it) for it in reduced[3:5])]
    if isinstance(value, nn.Module) and isinstance(parts[2], dict):
        # The numbers of hooks say how many were made before, by anyone.
        hooks = {n: list(v.values()) for n, v in parts[2].items() if n.endswith("_hooks")}
        parts[2] = parts[2] | hooks
    return parts


def fitted_state(estimator: Any) -> dict[str, Any]:
    """Return what a fitted estimator is made of: weights and history of nets, all of others."""
    if not isinstance(estimator, NeuralNet):
        return vars(estimator)
    state = estimator.get_params(deep=False)
    state |= {n + "_": getattr(estimator, n + "_", None) for n in estimator._modules}
    state |= {n + "_": getattr(estimator, n + "_", None) for n in estimator._criteria}
    # How long epochs took is all that differs between equal fits.
    rows = getattr(estimator, "history_", None) or []
    known = {"history_", "callbacks_", "virtual_params_", "initialized_", *state}
    known |= {name + "_" for name in estimator._optimizers}
    state |= {n: v for n, v in vars(estimator).items() if n.endswith("_") and n not in known}
    state["history_"] = [{name: row[name] for name in row if name != "dur"} for row in rows]
    return state | {"classes_inferred_": getattr(estimator, "classes_inferred_", None)}
