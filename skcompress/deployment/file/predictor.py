"""What ``load`` returns: a fitted classifier or regressor that runs the file's operations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from skorch.helper import SliceDataset
from torch import Tensor, nn

from ... import inputs
from ...prediction import winners
from ...probe import describe
from ...quantization.tensors import QuantizedTensor
from ...rows import cast
from .errors import check
from .interpreter import Interpreter


class InterpretedModule(nn.Module):
    """A module that runs a list of operations; its parameters have their old names.

    Parameters
    ----------
    interpreter : Interpreter
    tensors : dict of Tensor
        All parameters and buffers, by name.
    read : list of str
        Names of those that the operations read, in the order in which they number them.
    inputs : list of str or None
        Names of the arguments of ``forward``; None for a single one without a name.
    """

    def __init__(
        self,
        interpreter: Interpreter,
        tensors: Mapping[str, Tensor],
        read: Sequence[str],
        inputs: list[str] | None,
    ) -> None:
        super().__init__()
        self.interpreter, self.read, self.inputs = interpreter, list(read), inputs
        for name, tensor in tensors.items():
            _place(self, name, tensor)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        """Run the operations."""
        given = list(args) if self.inputs is None else [kwargs[name] for name in self.inputs]
        tensors = [self.get_tensor(name) for name in self.read]
        return self.interpreter(given, tensors)

    def get_tensor(self, name: str) -> Tensor:
        """Return a parameter or buffer by its name."""
        owner, _, attribute = _place_of(name).rpartition(".")
        return getattr(self.get_submodule(owner), attribute)

    def get_parameter(self, target: str) -> nn.Parameter:
        """Return a parameter by its name in the module that was saved."""
        return super().get_parameter(_place_of(target))


def _place_of(name: str) -> str:
    """Return where a tensor stands in its module; the names of constants begin with a dot."""
    return "constants" + name if name.startswith(".") else "tensors." + name


def _place(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor where its name says, in plain modules made for that."""
    *path, attribute = _place_of(name).split(".")
    try:
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]  # type: ignore[assignment]
        if tensor.is_floating_point():
            module.register_parameter(attribute, nn.Parameter(tensor, requires_grad=False))
        else:
            module.register_buffer(attribute, tensor)
    except (KeyError, TypeError) as error:
        check(False, f"a tensor has the name {name!r} ({error})")


class LoadedNet(BaseEstimator):
    """A fitted net that came out of a file; :func:`skcompress.load` makes it.

    Attributes
    ----------
    module_ : torch.nn.Module
        What predicts.
    masks_ : dict of bool Tensor
        What was not pruned of each weight matrix that was, by name.
    quantized_ : dict of QuantizedTensor
        The integers of each weight matrix that has them, by name.
    n_features_in_ : int
        Length of the first dimension of a row.
    feature_names_in_ : ndarray of shape (n_features,)
        Where the fitted estimator had them.
    """

    module_: nn.Module
    masks_: dict[str, Tensor]
    quantized_: dict[str, QuantizedTensor]
    # What the file says in words, to write it again.
    _about: dict[str, Any]
    _row_specs: list
    _rule: str
    _batch: int

    def fit(self, X: Any, y: Any = None) -> "LoadedNet":
        """Not possible: the file has no module to train."""
        raise ValueError(
            "A loaded file predicts, and has nothing that could be trained. Use"
            " load(path, estimator=net) to put its weights back into a net."
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def _outputs(self, X: Any) -> np.ndarray:
        """Run rows through the module, some at a time, and apply the output rule."""
        check_is_fitted(self)
        rows = self._check(X)
        n_rows, step = len(rows[0]), self._batch
        results = []
        with torch.no_grad():
            for start in range(0, n_rows, step):
                # Operations in place must not reach the caller's rows.
                part = [torch.from_numpy(x[start : start + step]).clone() for x in rows]
                results.append(self._run(part))
        return torch.cat(results).numpy()

    def _run(self, rows: list[Tensor]) -> Tensor:
        names = [name for name, _, _ in self._row_specs]
        try:
            if names[0] is None:
                output = self.module_(*rows)
            else:
                output = self.module_(**dict(zip(names, rows, strict=True)))
        except Exception as error:  # operations that nobody has run before
            raise ValueError(f"The file's operations do not take these rows: {error}") from error
        if not isinstance(output, Tensor) or output.shape[:1] != rows[0].shape[:1]:
            raise ValueError("The file's operations do not give a prediction for each row.")
        return RULES[self._rule](output)

    def _check(self, X: Any) -> list[np.ndarray]:
        """Validate rows as in ``predict`` of the estimator that was saved, and cast them."""
        if isinstance(X, SliceDataset):
            X = _collected([X[i] for i in range(len(X))])
        X = inputs.check_inputs(self, X, reset=False)
        rows = []
        for name, dtype, shape in self._row_specs:
            x = X if name is None else X[name]
            if list(x.shape[1:]) != list(shape):
                raise ValueError(
                    f"X is of {describe(X)}; the net was saved for rows of shape {tuple(shape)}"
                    + ("." if name is None else f" in {name!r}.")
                )
            inputs.type_of(x, dict.fromkeys("biuf", np.dtype(dtype)), name or "X")
            kind = np.dtype(dtype).kind
            if (kind == "i" and x.dtype.kind == "f") or (kind == "b" and x.dtype.kind != "b"):
                raise ValueError(
                    f"{name or 'X'} has numbers of {x.dtype}; the net was saved for {dtype}, which"
                    " would not hold all of them. Convert them first."
                )
            rows.append(cast(x, np.dtype(dtype), name or "X"))
        return rows


def _collected(rows: list) -> Any:
    """Stack rows of a Dataset: an array of them, or an array by name."""
    if rows and isinstance(rows[0], Mapping):
        return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
    return np.stack([np.asarray(row) for row in rows])


class LoadedClassifier(ClassifierMixin, LoadedNet):
    """A fitted classifier that came out of a file; :func:`skcompress.load` makes it.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    """

    classes_: np.ndarray
    _threshold: float | None

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict of arrays or SliceDataset

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``.
        """
        return self._outputs(X)

    def predict(self, X: Any) -> np.ndarray:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict of arrays or SliceDataset

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        outputs = self._outputs(X)
        return self.classes_[winners(outputs, self._threshold)]


class LoadedRegressor(RegressorMixin, LoadedNet):
    """A fitted regressor that came out of a file; :func:`skcompress.load` makes it."""

    _target_ndim: int

    def predict(self, X: Any) -> np.ndarray:
        """Predict numbers.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict of arrays or SliceDataset

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        """
        outputs = self._outputs(X)
        return outputs.ravel() if self._target_ndim == 1 else outputs


def _both(p: Tensor) -> Tensor:
    p = p.reshape(len(p))
    return torch.stack([1 - p, p], 1)


# How probabilities come of what a module gives, as skorch has it.
RULES = {
    "identity": lambda x: x,
    "softmax": lambda x: x.softmax(-1),
    "exp": lambda x: x.exp(),
    "sigmoid": lambda x: _both(x.sigmoid()),
    "binary": _both,
}
