"""Progress of training, epoch by epoch, for scikit-learn's callbacks such as its progress bar."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from skorch import NeuralNet

# The estimator whose fit is the outermost, and the context of its callbacks.
_FIT: ContextVar[tuple[Any, Any] | None] = ContextVar("_FIT", default=None)


@contextlib.contextmanager
def reporting(estimator: Any, X: Any, y: Any) -> Iterator[None]:
    """Let an estimator's callbacks hear of the training inside.

    What is fitted within the fit of another estimator reports to the callbacks of that one.

    Parameters
    ----------
    estimator : sklearn.callback.CallbackSupportMixin
    X, y : object
        What ``fit`` was given.
    """
    if _FIT.get() is not None:
        yield
        return
    # How many stages there are shows while they go on.
    context = estimator._init_callback_context(max_subtasks=None)
    context.call_on_fit_task_begin(estimator=estimator, X=X, y=y)
    token = _FIT.set((estimator, context))
    try:
        yield
    finally:
        _FIT.reset(token)
    context.call_on_fit_task_end(estimator=estimator, X=X, y=y)


@contextlib.contextmanager
def epochs(stage: str, n_epochs: int) -> Iterator[Callable[[], None]]:
    """Give a function to call after each epoch of a stage of training."""
    fit = _FIT.get()
    if fit is None:
        yield lambda: None
        return
    estimator, root = fit
    context = root.subcontext(task_name=stage, max_subtasks=n_epochs)
    context.call_on_fit_task_begin(estimator=estimator)
    left = iter(range(n_epochs))

    def done() -> None:
        if next(left, None) is None:  # a net whose fit trains for longer
            return
        epoch = context.subcontext(task_name="epoch")
        epoch.call_on_fit_task_begin(estimator=estimator)
        epoch.call_on_fit_task_end(estimator=estimator)

    yield done
    context.call_on_fit_task_end(estimator=estimator)


@contextlib.contextmanager
def net_epochs(net: NeuralNet) -> Iterator[None]:
    """Report the epochs of a skorch net that is fitted inside."""
    if _FIT.get() is None:
        yield
        return
    with epochs("dense fit", net.max_epochs) as done:
        # Not as a callback: those that the user gave are a parameter.
        vars(net)["on_epoch_end"] = _EpochEnd(net, done)
        try:
            yield
        finally:
            del vars(net)["on_epoch_end"]


class _EpochEnd:
    """In the place of a net's ``on_epoch_end``."""

    def __init__(self, net: NeuralNet, done: Callable[[], None]) -> None:
        self.net = net
        self.done = done

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        type(self.net).on_epoch_end(self.net, *args, **kwargs)
        self.done()

    def __reduce__(self) -> tuple[Any, ...]:
        # A checkpoint or copy of the net that a callback makes has its own method.
        return getattr, (self.net, "on_epoch_end")
