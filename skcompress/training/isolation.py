"""Seeds and threads that a fit uses without disturbing the caller's."""

import contextlib
import multiprocessing
import os
import random
import signal
import threading
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from joblib import parallel_config
from joblib.parallel import LokyBackend, MultiprocessingBackend, get_active_backend
from sklearn.utils import check_random_state

# Threads share the global generators, so that one fit at a time may draw from them.
_ONE_FIT = threading.RLock()


@contextlib.contextmanager
def isolated(n_threads: int | None = None) -> Iterator[None]:
    """Restore the global generators and torch's thread count on the way out.

    Of several threads, such as those of joblib's threading backend, one at a time is inside:
    the generators belong to all of them. So that none of them waits for itself, joblib runs its
    jobs inside one after the other, unless its backend has processes for them.

    Parameters
    ----------
    n_threads : int or None, default=None
        Number of threads that torch uses inside; None leaves it as it is, but for the workers
        of a pool, see :func:`fair_threads`.

    Examples
    --------
    >>> import torch
    >>> from skcompress.training.isolation import isolated
    >>> before = torch.random.get_rng_state()
    >>> with isolated(n_threads=1):
    ...     _ = torch.manual_seed(0), torch.rand(3)
    >>> bool((torch.random.get_rng_state() == before).all())
    True
    """
    with _ONE_FIT, _restored(), fair_threads(n_threads), _without_waiting():
        yield


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = range(torch.cuda.device_count())
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


@contextlib.contextmanager
def fair_threads(n_threads: int | None = None) -> Iterator[None]:
    """Set the number of threads that torch uses inside.

    The workers of a search together have as many cores as there are. loky, Dask and Ray tell
    theirs by OMP_NUM_THREADS, which torch obeys; the forked workers of joblib's multiprocessing
    backend are told nothing, and take one thread each.

    Parameters
    ----------
    n_threads : int or None, default=None
        None leaves the number as it is, but for such forked workers.
    """
    forked = multiprocessing.current_process().daemon and "OMP_NUM_THREADS" not in os.environ
    wanted = 1 if n_threads is None and forked else n_threads
    before = torch.get_num_threads()
    if wanted is not None:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _without_waiting() -> Iterator[None]:
    """Keep joblib's jobs where they cannot wait for the end of the fit that waits for them.

    In threads of this process they might. So they might on Dask, which gives the place of a cell
    that waits for jobs of its own to another cell, and that one waits for the first. loky,
    multiprocessing and Ray (a kind of the latter) start processes that do nothing else.
    """
    apart = isinstance(get_active_backend()[0], (LokyBackend, MultiprocessingBackend))
    with contextlib.nullcontext() if apart else parallel_config(backend="sequential"):
        yield


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on the way out if Ctrl-C was pressed inside.

    skorch takes it for the end of the training, as it takes what its EarlyStopping raises, and a
    search would go on with a net that is trained in part.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    pressed = []

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """Turn scikit-learn's ``random_state`` into one integer seed."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


@lru_cache(maxsize=1024)
def stage_seed(seed: int, stage: str) -> int:
    """Derive the seed of a named stage, so that no stage depends on another's draws."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(stage.encode())])
    return int(sequence.generate_state(1)[0])


def seed_generators(seed: int) -> None:
    """Seed the global generators of torch (every device), numpy and Python."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        # The other way notes each time where it was called from, in case there is a GPU later.
        torch.default_generator.manual_seed(seed)
    # What users' modules, datasets and callbacks draw from is the legacy generator.
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
