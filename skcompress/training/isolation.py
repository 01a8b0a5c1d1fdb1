"""Seeds and threads that a fit uses without disturbing the caller's."""

import contextlib
import random
import zlib
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.utils import check_random_state


@contextlib.contextmanager
def isolated(n_threads: int | None = None) -> Iterator[None]:
    """Restore the global generators and torch's thread count on the way out.

    Parameters
    ----------
    n_threads : int or None, default=None
        Number of threads that torch uses inside; None leaves it as it is.

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
    threads = torch.get_num_threads()
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = range(torch.cuda.device_count())
    try:
        with torch.random.fork_rng(devices=devices):
            if n_threads is not None:
                torch.set_num_threads(n_threads)
            yield
    finally:
        torch.set_num_threads(threads)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """Turn scikit-learn's ``random_state`` into one integer seed."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def stage_seed(seed: int, stage: str) -> int:
    """Derive the seed of a named stage, so that no stage depends on another's draws."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(stage.encode())])
    return int(sequence.generate_state(1)[0])


def seed_generators(seed: int) -> None:
    """Seed the global generators of torch (every device), numpy and Python."""
    torch.manual_seed(seed)
    # What users' modules, datasets and callbacks draw from is the legacy generator.
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
