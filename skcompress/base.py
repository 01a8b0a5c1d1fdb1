"""BaseCompressedNet: what every technique shares, from validation to prediction."""

import os
from abc import abstractmethod
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, Self

import joblib
import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import Tags, get_tags
from skorch import NeuralNet, NeuralNetBinaryClassifier
from skorch.dataset import get_len

from . import inputs
from . import probe as probing
from ._sklearn import Interval, validate_parameter_constraints
from .prediction import PredictionMixin
from .refusals import COMMON, Refusal, refuse
from .rows import cast
from .training.cache import cache_folder, cached_dense_fit, cached_fit
from .training.finite import check_dense
from .training.folder import CacheFolder, as_folder
from .training.isolation import draw_seed, isolated, seed_generators, stage_seed
from .training.loop import Data
from .training.nets import (
    copy_net,
    fitted_net,
    frozen_stage,
    given_classes,
    is_frozen,
    known_classes,
    number_classes,
    slim_net,
    without_nested_tensors,
    wrapped_net,
)
from .training.progress import reporting

# Fitted attributes that still hold when nothing more is done to the net.
INHERITED = ("masks_", "sparsity_", "unremovable_", "quantized_", "bits_")


class BaseCompressedNet(CallbackSupportMixin, PredictionMixin, MetaEstimatorMixin, BaseEstimator):
    """Fit a net, compress a copy of it, and predict with the copy.

    A subclass stores its parameters in ``__init__``, states their ranges in
    ``parameter_constraints`` and meaningless combinations in ``refusals``, and compresses
    ``net_`` in place in :meth:`_compress`.
    """

    parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [object],
        "random_state": ["random_state"],
        "n_threads": [Interval(Integral, 1, None, closed="left"), None],
        "memory": [str, os.PathLike, joblib.Memory, CacheFolder, None],
        "verbose": ["verbose"],
    }
    refusals: ClassVar[tuple[Refusal, ...]] = COMMON
    # What ``fit`` sets beside the attributes whose names end in an underscore.
    remembered: ClassVar[tuple[str, ...]] = ("_input_shapes", "_input_names", "_row_specs")
    estimator: Any
    random_state: int | np.random.RandomState | None
    n_threads: int | None
    memory: Any
    verbose: int | bool

    def _check_module(self, net: NeuralNet, data: Data) -> None:
        """Refuse a module that the technique cannot work on; `net` is not trained yet."""

    @abstractmethod
    def _compress(self, net: NeuralNet, data: Data, seed: int) -> None:
        """Compress the module of `net` in place and set the technique's fitted attributes."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the wrapped estimator, then compress a copy of its net, on these rows alone.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict of arrays or SliceDataset
            Inputs of the module: tables, images, sequences. Floats are cast to the module's type.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Class labels of any type, or numbers for a regressor.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows, in the dense fit and in compression.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If the data or the combination of parameters has no meaning, before any training.
        TypeError
            If `estimator` holds no skorch net.
        """
        return self._fit(X, y, sample_weight)

    @with_callbacks
    def _fit(self, X: Any, y: Any, sample_weight: Any, **beside: Any) -> Self:
        """Fit as ``fit`` does; what comes beside the rows is for :meth:`_teach`."""
        net = self._check_parameters()
        seed, rows = draw_seed(self.random_state), (X, y, sample_weight)
        with isolated(self.n_threads), reporting(self, X, y):
            compute = partial(self._fit_rows, net, rows, seed, **beside)
            cached_fit(self, seed, (rows, beside), compute)
        return self

    def _fit_rows(self, net: NeuralNet, rows: tuple, seed: int, **beside: Any) -> None:
        X, y, sample_weight = rows
        data = self._check_data(net, X, y, sample_weight, stage_seed(seed, "probe"))
        data = self._teach(data, rows, seed, **beside)
        self.estimator_ = self._fit_estimator(data, rows, stage_seed(seed, "dense"))
        # Copying initializes a module, which draws numbers.
        seed_generators(stage_seed(seed, "compress"))
        self.net_ = copy_net(fitted_net(self.estimator_))
        without_nested_tensors(self.net_.module_)
        self._inherit()
        check_dense(self.net_)
        self._compress(self.net_, data, stage_seed(seed, "compress"))
        self._slim()

    def _inherit(self) -> None:
        """Take over what the inner stages did to the net, and drop what an earlier fit set."""
        for name in INHERITED:
            self.__dict__.pop(name, None)
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))

    def _check_parameters(self) -> NeuralNet:
        """Refuse what has no meaning whatever the data; return the wrapped net."""
        constraints = BaseCompressedNet.parameter_constraints | self.parameter_constraints
        validate_parameter_constraints(
            constraints, self.get_params(deep=False), caller_name=type(self).__name__
        )
        net = wrapped_net(self.estimator)
        self._check_estimator(net)
        refuse(self.refusals, self, net)
        folder = as_folder(self.memory)
        if folder is not None:
            folder.check()
        return net

    def _teach(self, data: Data, rows: tuple, seed: int, **beside: Any) -> Data:
        """Return the rows to train on: with what the teacher of an outer stage says of them."""
        return replace(data, soft=beside.get("soft"))

    def _check_estimator(self, net: NeuralNet) -> None:
        if get_tags(net).estimator_type not in ("classifier", "regressor"):
            raise TypeError(
                f"{type(self).__name__} needs a classifier or a regressor; got"
                f" {type(net).__name__}. Use NeuralNetClassifier, NeuralNetBinaryClassifier,"
                " NeuralNetRegressor or a subclass of one."
            )
        if is_frozen(self.estimator):
            fitted_net(self.estimator)

    def _check_data(self, net: NeuralNet, X: Any, y: Any, sample_weight: Any, seed: int) -> Data:
        """Validate everything that can be validated before training, and convert it."""
        probing.check_batch_size(net)
        X, y, weights = self._check_rows(X, y, sample_weight)
        y = self._encode(y) if is_classifier(self) else y
        seed_generators(seed)
        probe = self._probe(net, X, y)
        without_nested_tensors(probe.module_)
        X, dtype = inputs.to_dtype(X, probe.module_), inputs.float_dtype(probe.module_)
        self._input_shapes = probing.describe(X)
        # What the file and the graph say of the inputs.
        self._row_specs = inputs.row_specs(X)
        shape = probing.output_shape(probe, X)
        if is_classifier(self):
            probing.check_outputs(net, shape, len(self.classes_))
            y = y.astype(dtype if isinstance(net, NeuralNetBinaryClassifier) else np.int64)
        else:
            self.target_ndim_ = y.ndim
            y = probing.shape_targets(cast(y, dtype, "y"), shape)
        if weights is not None:
            weights = inputs.cast_weights(weights, dtype)
        data = Data(X, y, weights)
        probing.check_loss(probe, Data(X, y))
        if not is_frozen(self.estimator):
            probing.check_split(probe, data)
        self._check_module(probe, data)
        return data

    def _check_rows(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, np.ndarray, Any]:
        """Validate inputs, targets and weights; a row of no weight is a row that was not given."""
        X = inputs.check_inputs(self, X, reset=True)
        y = inputs.check_labels(y) if is_classifier(self) else inputs.check_targets(y)
        if get_len(X) != len(y):
            raise ValueError(
                "Found input variables with inconsistent numbers of samples:"
                f" X has {get_len(X)}, y has {len(y)}."
            )
        weights = inputs.check_weights(sample_weight, len(y))
        if weights is not None and not weights.all():
            rows = np.flatnonzero(weights)
            X, y, weights = inputs.take_rows(X, rows), y[rows], weights[rows]
        return X, y, weights

    def _probe(self, net: NeuralNet, X: Any, y: np.ndarray) -> NeuralNet:
        """Return a net to try the rows on: untrained, or a copy of the frozen one."""
        if is_frozen(self.estimator):
            return copy_net(fitted_net(self.estimator))
        return probing.initialized_probe(net, X, y)

    def _encode(self, y: np.ndarray) -> np.ndarray:
        """Turn labels into the numbers of the net's outputs, which may have been named before."""
        frozen = frozen_stage(self.estimator)
        known = given_classes(self.estimator) if frozen is None else known_classes(frozen)
        self.classes_ = np.unique(y) if known is None else known
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least two classes in y; got one class:"
                f" {self.classes_.tolist()[0]!r}."
            )
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            why = "frozen net was not trained on" if frozen else "net's classes= leaves out"
            raise ValueError(
                f"y has labels {unknown.tolist()} that the {why}; its classes are"
                f" {self.classes_.tolist()}."
            )
        order = np.argsort(self.classes_)
        return order[np.searchsorted(self.classes_, y, sorter=order)]

    def _fit_estimator(self, data: Data, rows: tuple, seed: int) -> Any:
        """Fit a clone of the wrapped estimator; a frozen one is taken as it is.

        A stage inside is given the rows as ``fit`` was: frozen nets and teachers know the user's
        labels, and splits count rows of no weight.
        """
        if is_frozen(self.estimator):
            return self.estimator
        inner = self._unfitted(seed)
        if isinstance(inner, NeuralNet):
            return cached_dense_fit(cache_folder(self), inner, data, seed)
        if data.soft is None:
            X, y, sample_weight = rows
            return inner.fit(X, y, sample_weight=sample_weight)
        # A column of targets is there for the module only.
        y = data.y.ravel() if data.y.shape[1:] == (1,) else data.y
        y = self.classes_[y.astype(np.int64)] if is_classifier(self) else y
        return inner._fit(data.X, y, data.sample_weight, soft=data.soft)

    def _unfitted(self, seed: int) -> Any:
        """Return a clone of the wrapped estimator, with what it takes over from this one."""
        inner = clone(self.estimator)
        if isinstance(inner, NeuralNet):
            number_classes(inner)
            return inner.set_params(verbose=int(self.verbose))
        if inner.random_state is None:
            if not isinstance(self.random_state, Integral):
                # Its seed comes from no integer: there will never be the same one again.
                cache_folder(inner)  # says so
                inner.set_params(memory=None)
                return inner.set_params(random_state=seed)
            inner.set_params(random_state=seed)
        return inner if inner.memory is not None else inner.set_params(memory=self.memory)

    def _slim(self) -> None:
        slim_net(self.net_)
        if isinstance(self.estimator_, NeuralNet):
            slim_net(self.estimator_)

    @property
    def partial_fit(self) -> Any:
        """Not supported, and not there for ``hasattr``; a property can say why."""
        raise AttributeError(
            f"{type(self).__name__} does not support partial_fit: compression needs all the rows"
            " at once. Call fit, or train the net on with partial_fit first and pass it as"
            " FrozenEstimator(net)."
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags.required = True
        tags.target_tags.single_output = True
        if isinstance(_core(self.estimator), NeuralNetBinaryClassifier):
            tags.classifier_tags.multi_class = False
        return tags


def _core(estimator: Any) -> NeuralNet | None:
    try:
        return wrapped_net(estimator)
    except TypeError:
        return None
