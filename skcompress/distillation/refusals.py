"""What DistilledNet refuses, and what to do instead."""

from numbers import Integral
from typing import Any

from sklearn.base import is_classifier

from ..refusals import COMMON, Refusal
from ..training.nets import is_frozen, wrapped_net

IN_SAMPLE = "in-sample"


def listed(teacher: Any) -> list[Any]:
    """Return a teacher, or several, as a list."""
    return list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]


def _stages(distilled: Any) -> list[Any]:
    """Return the student's own stages of compression."""
    stages, stage = [], distilled.estimator
    while hasattr(type(stage), "_compress") or is_frozen(stage):
        stages.append(stage)
        stage = stage.estimator
    return stages


def _is_net(teacher: Any) -> bool:
    try:
        return wrapped_net(teacher) is not None
    except TypeError:
        return False


def _all_frozen(teacher: Any) -> bool:
    return bool(listed(teacher)) and all(map(is_frozen, listed(teacher)))


def _has_splits(distilled: Any) -> bool:
    """Tell whether splits are given; a search may combine a number with teachers of any kind."""
    return distilled.cv is not None and not isinstance(distilled.cv, (str, Integral))


REFUSALS = (
    *COMMON,
    Refusal(
        "a frozen student",
        lambda p, net: is_frozen(p.estimator),
        "A frozen net is not trained again, so there is nothing to teach it. Leave"
        " FrozenEstimator out, or freeze the teacher instead.",
    ),
    Refusal(
        "a student with a teacher of its own",
        lambda p, net: any(hasattr(stage, "teacher") for stage in _stages(p)),
        "The student has a teacher already. Give both to one: DistilledNet(student,"
        " teacher=[first, second]) averages them.",
    ),
    Refusal(
        "a student with distill",
        lambda p, net: any(getattr(stage, "distill", 0) > 0 for stage in _stages(p)),
        "The teacher teaches the student in all phases, its compression among them. Set"
        " distill=0.0 in the student.",
    ),
    Refusal(
        "loss='kl' with a regressor",
        lambda p, net: p.loss == "kl" and not is_classifier(net),
        "loss='kl' compares probabilities, which a regressor has not. Set loss='mse', or leave"
        " it at None.",
    ),
    Refusal(
        "temperature with loss='mse' or a regressor",
        lambda p, net: (
            p.temperature is not None
            and (p.loss == "mse" or (p.loss is None and not is_classifier(net)))
        ),
        "temperature= softens the probabilities that loss='kl' compares; squared differences"
        " have none. Leave temperature at None, or use loss='kl' with a classifier.",
    ),
    Refusal(
        "splits with frozen teachers",
        lambda p, net: _has_splits(p) and not p.baseline and _all_frozen(p.teacher),
        "cv= splits the rows that teachers are fitted on, and a frozen teacher is not fitted."
        " Leave cv at None or a number of folds, or set baseline=True, which fits the student on"
        " these splits.",
    ),
    Refusal(
        "baseline with cv='in-sample'",
        lambda p, net: p.baseline and p.cv == IN_SAMPLE,
        "baseline=True compares teacher and student on rows that neither was fitted on, and"
        " cv='in-sample' leaves none. Give cv= a number of folds or splits.",
    ),
    Refusal(
        "hint_weight without hints",
        lambda p, net: p.hint_weight is not None and not p.hints,
        "hint_weight= weighs the loss of hints, and there are none. Give hints= such as"
        " {'student layer': 'teacher layer'}, or leave hint_weight at None.",
    ),
    Refusal(
        "hints of a teacher that is no net",
        lambda p, net: (
            bool(p.hints) and (isinstance(p.teacher, (list, tuple)) or not _is_net(p.teacher))
        ),
        "hints= compares layers, and the teacher is not one net. Give a skorch net, a compressed"
        " net or a FrozenEstimator of either as teacher, or leave hints at None.",
    ),
)
