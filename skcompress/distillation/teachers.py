"""Teachers: any scikit-learn estimator, asked in one way."""

import inspect
import warnings
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.pipeline import Pipeline
from sklearn.utils import assert_all_finite
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import has_fit_parameter

from ..training.isolation import seed_generators, stage_seed
from ..training.nets import is_frozen
from .net_teacher import NetTeacher, shares

WEIGHT = "sample_weight"


def unwrapped(teacher: Any) -> Any:
    """Return a teacher as it was given."""
    return teacher.estimator if isinstance(teacher, NetTeacher) else teacher


def is_trained(teacher: Any) -> bool:
    """Tell whether a teacher is frozen."""
    return is_frozen(unwrapped(teacher))


def check_teacher(teacher: Any, classification: bool) -> None:
    """Refuse what cannot teach a student of this type.

    Raises
    ------
    TypeError
        If it is no estimator, of the other type, or a classifier without probabilities.
    """
    name = type(teacher).__name__
    if isinstance(teacher, type) or not (hasattr(teacher, "fit") and hasattr(teacher, "predict")):
        raise TypeError(
            f"teacher must be a scikit-learn estimator, a skorch net or a list of them; got"
            f" {teacher!r}. Give an instance such as RandomForestClassifier()."
        )
    if not (is_classifier if classification else is_regressor)(teacher):
        kind = "classifier" if classification else "regressor"
        raise TypeError(
            f"The student is a {kind}, and the teacher {name} is none. Give a {kind} as teacher."
        )
    if classification and not hasattr(teacher, "predict_proba"):
        raise TypeError(
            f"A teacher gives probabilities, and {name} has no predict_proba. Give one that has:"
            " CalibratedClassifierCV around it, VotingClassifier(voting='soft') or SVC inside"
            " CalibratedClassifierCV."
        )


def fitted(teacher: Any, X: Any, y: np.ndarray, weights: np.ndarray | None, seed: int) -> Any:
    """Fit a clone of a teacher; every ``random_state`` in it that is None gets a seed.

    A frozen teacher stays as it is.
    """
    if is_frozen(teacher):
        return teacher
    teacher = clone(teacher)
    states = {
        name: stage_seed(seed, name) % 2**31
        for name, value in sorted(teacher.get_params().items())
        if value is None and name.rpartition("__")[2] == "random_state"
    }
    # What draws from the global generators is seeded too.
    seed_generators(seed)
    return teacher.set_params(**states).fit(X, y, **weight_parameters(teacher, weights))


def weight_parameters(teacher: Any, weights: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the parameters of ``fit`` that give a teacher the sample weights, if it takes any."""
    name = weight_name(teacher)
    return {} if weights is None or name is None else {name: weights}


def weight_name(teacher: Any) -> str | None:
    """Name the parameter of ``fit`` that takes sample weights.

    In a Pipeline without metadata routing it is that of the last step; an estimator around others
    takes weights if these do.
    """
    if has_fit_parameter(teacher, WEIGHT):
        return WEIGHT
    if get_config()["enable_metadata_routing"]:
        routed = get_routing_for_object(teacher).consumes("fit", [WEIGHT])
        return WEIGHT if routed else None
    if isinstance(teacher, Pipeline):
        step, last = teacher.steps[-1]
        inner = weight_name(last)
        return None if inner is None else f"{step}__{inner}"
    named = getattr(teacher, "estimators", None)
    members = [member for _, member in named] if named else [getattr(teacher, "estimator", None)]
    members = [member for member in members if member is not None and not isinstance(member, str)]
    kinds = [parameter.kind for parameter in inspect.signature(teacher.fit).parameters.values()]
    passes_on = inspect.Parameter.VAR_KEYWORD in kinds and bool(members)
    return WEIGHT if passes_on and all(weight_name(m) == WEIGHT for m in members) else None


def warn_of_weights(teacher: Any) -> None:
    """Say it where a teacher cannot be given the sample weights."""
    if not is_trained(teacher) and weight_name(teacher) is None:
        warnings.warn(
            f"The teacher {type(teacher).__name__} takes no sample_weight: it is fitted on the"
            " rows of positive weight as if they weighed the same. The student is weighted.",
            UserWarning,
            stacklevel=2,
        )


def answers(teacher: Any, X: Any, classes: np.ndarray | None) -> np.ndarray:
    """Ask a fitted teacher: probabilities of `classes`, or predictions where there are none.

    Classes that it has not seen have probability zero; those that are not asked for are left
    out, and the others add up to one.

    Raises
    ------
    ValueError
        If it knows none of the classes, does not have one column for each that it knows, or
        answers with NaN or infinity.
    """
    if classes is None:
        given = np.asarray(teacher.predict(X), dtype=np.float64)
        assert_all_finite(given, input_name="the teacher's predictions")
        return given
    given, known = np.asarray(teacher.predict_proba(X), dtype=np.float64), teacher.classes_
    assert_all_finite(given, input_name="the teacher's predictions")
    if given.shape[1] != len(known):
        raise ValueError(
            f"The teacher {type(teacher).__name__} gives {given.shape[1]} columns of"
            f" probabilities and knows {len(known)} classes, {known.tolist()}, so that nobody can"
            " tell which is which. Frozen nets in it need classes=, the labels of all of their"
            " outputs, and a frozen member of a VotingClassifier rows of every class in each fold."
        )
    columns = {label: column for column, label in enumerate(known.tolist())}
    if columns.keys().isdisjoint(classes.tolist()):
        raise ValueError(
            f"The teacher {type(teacher).__name__} knows the classes {known.tolist()}, and y has"
            f" {classes.tolist()}. Fit it on the same labels."
        )
    aligned = np.zeros((len(given), len(classes)))
    for column, label in enumerate(classes.tolist()):
        if label in columns:
            aligned[:, column] = given[:, columns[label]]
    return shares(aligned)
