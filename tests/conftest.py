"""Settings of the whole test run, made before anything imports torch or matplotlib."""

import os

import pytest

# One thread in each of the test run's processes, and in the workers of the searches they start:
# more would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Otherwise scikit-learn skips its check of array API input. scipy reads it when it is imported.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Figures are drawn to memory: a run on a machine with a screen must not open windows.
os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(scope="module", autouse=True)
def workers_of_the_module():
    """End the worker processes of a module's searches.

    Workers that have waited for five minutes end by themselves, and a search that begins at that
    moment may wait for them for ever.
    """
    yield
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown()


@pytest.fixture(autouse=True)
def nothing_told():
    """Let each test see what a process is warned of once."""
    from skcompress.training.folder import TOLD

    TOLD.clear()
