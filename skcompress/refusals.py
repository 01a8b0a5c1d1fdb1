"""Combinations without meaning: the one form in which they are refused and documented."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.base import is_classifier
from skorch import NeuralNet


@dataclass(frozen=True)
class Refusal:
    """A combination of parameters that has no meaning.

    Parameters
    ----------
    combination : str
        What is refused, as the documentation shows it.
    applies : callable
        ``applies(estimator, net)`` tells whether an estimator asks for it; `net` is the skorch
        net that it wraps.
    message : str
        Why, and what would work.
    """

    combination: str
    applies: Callable[[Any, NeuralNet], bool]
    message: str


def refuse(table: Sequence[Refusal], estimator: Any, net: NeuralNet) -> None:
    """Raise the message of the first refusal that applies.

    Raises
    ------
    ValueError
        If one does.
    """
    for refusal in table:
        if refusal.applies(estimator, net):
            raise ValueError(refusal.message)


COMMON = (
    Refusal(
        "a net with compile=True",
        lambda estimator, net: bool(net.compile),
        "compile=True is not supported: a compiled module cannot be taken apart."
        " Set compile=False in the net.",
    ),
)

# Where the dense net may stay on as teacher.
DISTILL = (
    Refusal(
        "distill_temperature without distill",
        lambda p, net: p.distill == 0 and p.distill_temperature is not None,
        "distill_temperature= belongs to the dense net's soft labels, and distill=0.0 uses none."
        " Give distill= a weight such as 0.7, or leave distill_temperature at None.",
    ),
    Refusal(
        "distill_temperature with a regressor",
        lambda p, net: (
            p.distill > 0 and p.distill_temperature is not None and not is_classifier(net)
        ),
        "distill_temperature= softens probabilities, which a regressor has not. Leave"
        " distill_temperature at None.",
    ),
)
