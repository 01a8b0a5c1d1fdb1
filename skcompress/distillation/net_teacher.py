"""Nets as teachers: alone or inside other estimators, with scikit-learn's manners."""

from typing import Any, Self

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.utils.metaestimators import available_if
from skorch import NeuralNet

from ..base import BaseCompressedNet
from ..inputs import take_rows, to_dtype
from ..probe import initialized_probe, output_shape
from ..training.loop import Data
from ..training.nets import frozen_stage, given_classes, is_frozen, stages, wrapped_net

SEARCHED = ("param_grid", "param_distributions")


class NetTeacher(BaseCompressedNet):
    """A net as it is, with scikit-learn's manners: labels, types, weights and seeds.

    Like any classifier it knows the classes of the rows that it is fitted on, and no others. A
    module that has outputs for more is trained with all of them, and those are left out of its
    answers.

    Parameters
    ----------
    estimator : skorch net, compressed net or FrozenEstimator of a skorch net
    classes : ndarray of shape (n_classes,), default=None
        Labels that the rows may lack.
    random_state : int, RandomState instance or None, default=None
    n_threads : int >= 1, default=None
    memory : str, path, joblib.Memory or CacheFolder, default=None
    verbose : int or bool, default=0
    """

    remembered = (*BaseCompressedNet.remembered, "_outputs", "_columns")

    def __init__(
        self,
        estimator: Any,
        *,
        classes: np.ndarray | None = None,
        random_state: Any = None,
        n_threads: int | None = None,
        memory: Any = None,
        verbose: int | bool = 0,
    ) -> None:
        self.estimator = estimator
        self.classes = classes
        self.random_state = random_state
        self.n_threads = n_threads
        self.memory = memory
        self.verbose = verbose

    def set_params(self, **params: Any) -> Self:
        """Set parameters of its own, or of the net, which a search names as before."""
        own = self.get_params(deep=False)
        inner = {n for n in params if n.partition("__")[0] not in own}
        return super().set_params(
            **{f"estimator__{n}" if n in inner else n: value for n, value in params.items()}
        )

    def _check_rows(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, np.ndarray, Any]:
        X, y, weights = super()._check_rows(X, y, sample_weight)
        self._outputs = self._all_labels(X, y)
        return X, y, weights

    def _all_labels(self, X: Any, y: np.ndarray) -> np.ndarray | None:
        """Return the labels of all outputs, where the rows lack some."""
        net = wrapped_net(self.estimator)
        named = "classes" not in net.get_params(deep=False) or given_classes(net) is not None
        if self.classes is None or named or frozen_stage(self.estimator) is not None:
            return None
        seen, codes = np.unique(y, return_inverse=True)
        labels = np.unique(self.classes)
        if not set(seen.tolist()) <= set(labels.tolist()):
            # A VotingClassifier, and others, number the labels of their rows.
            labels = np.arange(len(labels))
        if len(seen) == len(labels) or not set(seen.tolist()) <= set(labels.tolist()):
            return None
        # A module may take its width from the rows, or be given the labels of a part of them.
        probe = initialized_probe(net, X, codes)
        rows = to_dtype(take_rows(X, np.arange(min(2, len(y)))), probe.module_)
        width = output_shape(probe, rows)[-1]
        return labels if width == len(labels) else None

    def _encode(self, y: np.ndarray) -> np.ndarray:
        if self._outputs is None:
            return super()._encode(y)
        self.classes_ = self._outputs
        return np.searchsorted(self.classes_, y)

    def _probe(self, net: NeuralNet, X: Any, y: np.ndarray) -> NeuralNet:
        if self._outputs is not None:
            net = clone(net).set_params(classes=np.arange(len(self._outputs)))
        return super()._probe(net, X, y)

    def _unfitted(self, seed: int) -> Any:
        inner = super()._unfitted(seed)
        if self._outputs is None:
            return inner
        depth = len(list(stages(inner))) - 1
        labels = self._outputs if depth else np.arange(len(self._outputs))
        return inner.set_params(**{"estimator__" * depth + "classes": labels})

    def _compress(self, net: NeuralNet, data: Data, seed: int) -> None:
        """Leave the net as it is, and forget the classes that it has not seen."""
        self._columns = None
        if is_classifier(self) and frozen_stage(self.estimator) is None:
            columns = np.unique(data.y).astype(np.int64)
            if len(columns) < len(self.classes_):
                self._columns, self.classes_ = columns, self.classes_[columns]

    def predict(self, X: Any) -> np.ndarray:
        """Predict one of the classes that it has seen, or a number."""
        if self._columns is None:
            return super().predict(X)
        return self.classes_[self.predict_proba(X).argmax(1)]

    @available_if(is_classifier)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict probabilities of the classes that it has seen, which add up to one."""
        given = super().predict_proba(X)
        return given if self._columns is None else shares(given[:, self._columns])


def as_estimator(teacher: Any, classes: np.ndarray | None = None) -> Any:
    """Wrap the nets in a teacher, trained or not, of which one may stand anywhere inside it.

    A skorch net by itself knows neither labels nor weights, and neither it nor a compressed one
    takes rows that lack some of the `classes`.
    """
    if isinstance(teacher, NetTeacher):
        return clone(teacher).set_params(classes=classes)
    if _is_net(teacher):
        return NetTeacher(teacher, classes=classes)
    if is_frozen(teacher) or isinstance(teacher, type) or not hasattr(teacher, "get_params"):
        return teacher
    params, wrapped = teacher.get_params(), {}
    closed: list[str] = []
    for name, part in sorted(params.items()):
        if not any(name.startswith(f"{outer}__") for outer in closed):
            if _is_net(part) and not (_is_stage(part) and _is_searched(name, params)):
                wrapped[name] = NetTeacher(part, classes=classes)
            if _is_net(part) or is_frozen(part):
                closed.append(name)
    return clone(teacher).set_params(**wrapped) if wrapped else teacher


def _is_net(part: Any) -> bool:
    inner = part
    while is_frozen(inner):
        inner = inner.estimator
    return isinstance(inner, NeuralNet) or _is_stage(part)


def _is_stage(part: Any) -> bool:
    return isinstance(part, BaseCompressedNet)


def _is_searched(name: str, params: dict[str, Any]) -> bool:
    """Tell whether a search around a compressed net names its parameters, as it stands."""
    grids = [grid for grid in params if grid.rpartition("__")[2] in SEARCHED]
    return any(name.startswith(grid.rpartition("__")[0]) for grid in grids)


def shares(values: np.ndarray) -> np.ndarray:
    """Let the values of each row add up to one; where all are zero, they say nothing."""
    totals = values.sum(1, keepdims=True)
    return np.where(totals > 0, values / np.where(totals > 0, totals, 1), 1 / values.shape[1])
