"""DistilledNet: a skorch net that is taught by any scikit-learn estimator."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import is_classifier
from skorch import NeuralNet
from skorch.dataset import get_len

from .._sklearn import Interval, StrOptions
from ..base import BaseCompressedNet
from ..probe import initialized_probe
from ..refusals import Refusal
from ..training.cache import cache_folder
from ..training.isolation import stage_seed
from ..training.loop import Data
from ..training.nets import fitted_net, is_frozen, wrapped_net
from ..training.teaching import check_taught
from .augment import munge
from .extra import add_rows, check_table, check_unlabeled
from .given import Rows, as_given
from .hints import check_layers, student_hints
from .net_teacher import as_estimator
from .refusals import IN_SAMPLE, REFUSALS, listed
from .splits import make_splits
from .targets import as_soft, average, fit_all, out_of_fold, score, warn_if_no_better
from .teachers import check_teacher, is_trained, warn_of_weights


class DistilledNet(BaseCompressedNet):
    """Train a skorch net on the soft labels of a teacher, inside ``fit``.

    The teacher is fitted on the rows given to ``fit``, by default on folds of them, so that each
    row's soft label comes from a teacher that has not seen the row. The student is trained once,
    from its initial weights, on labels and soft labels together.

    Parameters
    ----------
    estimator : skorch net or compressed net
        The student. A compressed net is taught in its dense fit and in its retraining.
    teacher : estimator, skorch net, FrozenEstimator of either, or list of these
        A classifier with ``predict_proba``, or a regressor. It is given `X` and `y` as ``fit``
        is. A list is averaged; a frozen one is not fitted, and its labels are in-sample.
    alpha : float in (0, 1], default=0.7
        Weight of the soft loss; ``1 - alpha`` is that of the net's own.
    temperature : float > 0, default=None
        Softens the probabilities that ``loss="kl"`` compares. None means 2.
    loss : {"kl", "mse"}, default=None
        ``T**2 * KL(teacher || student)`` [1]_, or the mean squared difference of centred
        log-probabilities [2]_ or of a regressor's predictions. None means "kl" for a classifier
        and "mse" for a regressor.
    cv : int >= 2, splitter, iterable of (train, test) or "in-sample", default=None
        The folds of soft labels; None means 5. Rows tested several times get the average, rows
        never tested have no soft label. "in-sample" asks a teacher fitted on all of the rows.
        A frozen teacher has no use for a number of folds.
    hints : dict of str, default=None
        Layers of the student, and the layers of the teacher that they are compared with, where
        both are nets: by which rows they find similar [3]_, so that widths may differ.
    hint_weight : float > 0, default=None
        Weight of that loss, which is added to the others. None means 1.
    augment : int >= 0, default=0
        Synthetic rows for each row of a table, made between neighbours [4]_ and labelled by the
        teacher.
    baseline : bool, default=False
        Also fit the student without its teacher on each fold, for ``baseline_score_``.
    random_state : int, RandomState instance or None, default=None
        Seeds every stage, the folds, and each ``random_state`` of the teacher that is None.
    n_threads : int >= 1, default=None
        Threads of torch during ``fit``; None leaves them as they are.
    memory : str, path, joblib.Memory or CacheFolder, default=None
        Folder that keeps this fit and those within it, given an integer `random_state`.
    verbose : int or bool, default=0
        Print the progress of training if positive; replaces the student's own setting.

    Attributes
    ----------
    estimator_ : estimator
        The fitted student.
    net_ : skorch net
        The student's net, for prediction.
    teacher_ : estimator or list of estimator
        The teacher fitted on all rows. Only where it is asked: with in-sample labels, hints,
        ``augment`` or unlabelled rows. Otherwise it is not fitted, and not pickled.
    teacher_score_ : float
        Accuracy or coefficient of determination of the soft labels, on the rows of ``fit``.
    baseline_score_ : float
        Only with ``baseline=True``: that of the student alone, on the same folds.
    classes_ : ndarray of shape (n_classes,)
        Only for classifiers: the labels.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)

    Raises
    ------
    ValueError
        If the data, the criterion or the combination of parameters has no meaning.
    TypeError
        If the teacher cannot teach this student.

    References
    ----------
    .. [1] G. Hinton, O. Vinyals and J. Dean, "Distilling the knowledge in a neural network",
       2015.
    .. [2] J. Ba and R. Caruana, "Do deep nets really need to be deep?", NIPS 2014.
    .. [3] F. Tung and G. Mori, "Similarity-preserving knowledge distillation", ICCV 2019.
    .. [4] C. Bucila, R. Caruana and A. Niculescu-Mizil, "Model compression", KDD 2006.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from torch import nn
    >>> from skcompress import DistilledNet
    >>> class MLP(nn.Sequential):
    ...     def __init__(self, hidden=16):
    ...         super().__init__(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    >>> net = NeuralNetClassifier(
    ...     MLP, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=0.01,
    ...     max_epochs=20, train_split=None)
    >>> X, y = load_digits(return_X_y=True)
    >>> student = DistilledNet(net, RandomForestClassifier(50), cv=3, random_state=0)
    >>> bool(student.fit(X[:1000] / 16, y[:1000]).score(X[1000:] / 16, y[1000:]) > 0.85)
    True
    >>> bool(student.teacher_score_ > 0.9)
    True
    """

    parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "teacher": [object],
        "alpha": [Interval(Real, 0, 1, closed="right")],
        "temperature": [Interval(Real, 0, None, closed="neither"), None],
        "loss": [StrOptions({"kl", "mse"}), None],
        "cv": ["cv_object", StrOptions({IN_SAMPLE})],
        "hints": [Mapping, None],
        "hint_weight": [Interval(Real, 0, None, closed="neither"), None],
        "augment": [Interval(Integral, 0, None, closed="left")],
        "baseline": ["boolean"],
    }
    refusals: ClassVar[tuple[Refusal, ...]] = REFUSALS

    def __init__(
        self,
        estimator: Any,
        teacher: Any,
        *,
        alpha: float = 0.7,
        temperature: float | None = None,
        loss: str | None = None,
        cv: Any = None,
        hints: Mapping[str, str] | None = None,
        hint_weight: float | None = None,
        augment: int = 0,
        baseline: bool = False,
        random_state: int | np.random.RandomState | None = None,
        n_threads: int | None = None,
        memory: Any = None,
        verbose: int | bool = 0,
    ) -> None:
        self.estimator = estimator
        self.teacher = teacher
        self.alpha = alpha
        self.temperature = temperature
        self.loss = loss
        self.cv = cv
        self.hints = hints
        self.hint_weight = hint_weight
        self.augment = augment
        self.baseline = baseline
        self.random_state = random_state
        self.n_threads = n_threads
        self.memory = memory
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None, X_unlabeled: Any = None) -> Self:
        """Ask the teacher, then train the student on labels and soft labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict of arrays or SliceDataset
            Inputs of student and teacher. A frame reaches the teacher as it is.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Class labels of any type, or numbers for a regressor.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows, for student and teacher. Splits given as `cv` count
            rows of no weight, which leave afterwards.
        X_unlabeled : array-like of shape (n_unlabeled, ...), default=None
            More rows, of weight one, which the teacher labels. With metadata routing a search
            passes them whole, unless they are exactly as many as the rows of `X`.

        Returns
        -------
        self : object
        """
        return self._fit(X, y, sample_weight, X_unlabeled=X_unlabeled)

    def _check_parameters(self) -> NeuralNet:
        net = super()._check_parameters()
        teachers = self._teachers()
        if not teachers:
            raise TypeError("teacher is an empty list. Give at least one estimator.")
        for teacher in teachers:
            check_teacher(teacher, is_classifier(self))
        # Before the teacher is fitted, which may take long.
        for inner in (self.estimator, *listed(self.teacher), *teachers):
            if isinstance(inner, BaseCompressedNet):
                inner._check_parameters()
        return net

    def _check_module(self, net: NeuralNet, data: Data) -> None:
        if isinstance(self.estimator, BaseCompressedNet):
            self.estimator._check_module(net, data)
        check_taught(net, data)
        if self.hints:
            check_layers(net, self.hints.keys(), data.X, data.y, "student")
            frozen = is_frozen(self.teacher)
            taught = fitted_net(self.teacher) if frozen else wrapped_net(self.teacher)
            taught = taught if frozen else initialized_probe(taught, data.X, data.y)
            check_layers(taught, self.hints.values(), data.X, data.y, "teacher")

    def _compress(self, net: NeuralNet, data: Data, seed: int) -> None:
        """Leave the net as it is: what was to be done is done in the student's fit."""

    def _teachers(self, classes: np.ndarray | None = None) -> list[Any]:
        return [as_estimator(teacher, classes) for teacher in listed(self.teacher)]

    def _teach(self, data: Data, rows: tuple, seed: int, **beside: Any) -> Data:
        """Attach the teacher's labels to the rows, and add those rows that it alone labels."""
        given = as_given(self, *rows)
        unlabelled = check_unlabeled(self, given.X, beside.get("X_unlabeled"))
        if self.augment:
            check_table(given.X)
        values = self._ask(given, seed, unlabelled is not None)
        counted = np.flatnonzero(given.counted)
        given, values = given.take(counted), values[counted]
        kind = ("logits" if self.loss == "mse" else "kl") if is_classifier(self) else "values"
        soft = as_soft(values, data.y.shape, kind, self.alpha, self.temperature)
        data = replace(data, soft=soft)
        for X, weights in self._extra(given, unlabelled, seed):
            data = add_rows(data, X, average(listed(self.teacher_), X, given.classes), weights)
        if len(data.y) > len(counted):
            # Rows of one kind must not share batches, nor be all of an internal validation set.
            shuffle = np.random.RandomState(stage_seed(seed, "shuffle") % 2**32)
            data = data.take(shuffle.permutation(len(data.y)))
        return self._hinted(data) if self.hints else data

    def _ask(self, given: Rows, seed: int, extra: bool) -> np.ndarray:
        """Return what the teacher says of each row, and note how well it does."""
        teachers, folder = self._teachers(given.classes), cache_folder(self)
        for name in ("teacher_", "baseline_score_"):
            self.__dict__.pop(name, None)  # of an earlier fit
        if given.weights is not None:
            for teacher in teachers:
                warn_of_weights(teacher)
        fixed = all(map(is_trained, teachers))
        folds = self.cv != IN_SAMPLE if isinstance(self.cv, str) else not fixed or self.baseline
        splits = make_splits(self.cv, given, stage_seed(seed, "folds")) if folds else None
        if splits is None or fixed or self.hints or self.augment or extra:
            known = fit_all(teachers, given, stage_seed(seed, "teacher"))
            self.teacher_ = known if isinstance(self.teacher, (list, tuple)) else known[0]
        if splits is None or fixed:
            values = average(known, given.X, given.classes)
        else:
            values = out_of_fold(teachers, given, splits, stage_seed(seed, "teacher"), folder)
        self.teacher_score_ = score(values, given)
        if self.baseline and splits is not None:
            student = as_estimator(self.estimator, given.classes)
            alone = stage_seed(seed, "baseline")
            answers = out_of_fold([student], given, splits, alone, folder)
            self.baseline_score_ = score(answers, given)
            warn_if_no_better(self.teacher_score_, self.baseline_score_)
        return values

    def _extra(self, given: Rows, unlabelled: Any, seed: int) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield rows that only the teacher labels, with their weights."""
        if self.augment:
            weights = np.ones(len(given.y)) if given.weights is None else given.weights
            X = munge(given.X, self.augment, stage_seed(seed, "augment"))
            yield X, np.tile(weights, self.augment)
        if unlabelled is not None:
            yield unlabelled, np.ones(get_len(unlabelled))

    def _hinted(self, data: Data) -> Data:
        """Let the activations of the teacher's net travel with the rows."""
        assert self.hints is not None
        assert data.soft is not None
        hints = student_hints(self.hints, fitted_net(self.teacher_), data.X, data.y)
        weight = 1.0 if self.hint_weight is None else self.hint_weight
        return replace(data, soft=replace(data.soft, hints=hints, hint_weight=weight))
