"""What is set around a fit counts, and a setting that cannot be told keeps it from the cache."""

import contextlib

import numpy as np
import pytest
import sklearn
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook

from skcompress import PrunedNet
from skcompress.training import CacheFolder
from skcompress.training.settings import settings
from skcompress.training.state import UncacheableError
from tests.contract_modules import blobs, classifier


@contextlib.contextmanager
def changed(owner, name, value):
    """Set an attribute inside."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def called(setter, value, before):
    """Call a setter, and again on the way out."""
    setter(value)
    try:
        yield
    finally:
        setter(before)


backends = torch.backends
CHANGES = {
    "products": lambda: changed(backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "convolutions": lambda: changed(backends.mkldnn.conv, "fp32_precision", "bf16"),
    "recurrent layers": lambda: changed(backends.mkldnn.rnn, "fp32_precision", "bf16"),
    "all precisions": lambda: changed(backends, "fp32_precision", "tf32"),
    "attention": lambda: sdpa_kernel(SDPBackend.MATH),
    "autocast": lambda: torch.autocast("cpu"),
    "type": lambda: called(torch.set_default_dtype, torch.float64, torch.float32),
    "oneDNN": lambda: called(torch._C._set_mkldnn_enabled, False, True),
    "fast path": lambda: called(backends.mha.set_fastpath_enabled, False, True),
    "threads": lambda: called(torch.set_num_threads, 2, torch.get_num_threads()),
    "routing": lambda: sklearn.config_context(enable_metadata_routing=True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_setting_counts(change):
    """And no longer once it is as it was."""
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    before = settings()
    with CHANGES[change]():
        assert settings() != before
    assert settings() == before
    torch.set_num_threads(torch_threads)


@pytest.mark.parametrize("change", ["products", "all precisions", "attention", "autocast"])
def test_fits_with_other_settings_are_others(change, tmp_path):
    """A fit within them is cached by itself, and found again."""
    folder = CacheFolder(tmp_path / "cache")
    net = PrunedNet(classifier(), random_state=0, n_threads=1, memory=folder)
    rows, labels = blobs(60)
    n_bytes = []
    for within in (contextlib.nullcontext, CHANGES[change], CHANGES[change]):
        with within():
            net.fit(rows, labels)
        n_bytes.append(folder.n_bytes)
    assert n_bytes[0] < n_bytes[1] == n_bytes[2]


def test_hooks_on_all_modules_are_not_looked_into(tmp_path):
    """A fit with them is computed each time, and says why."""
    net = PrunedNet(classifier(), random_state=0, memory=tmp_path)
    plain = net.fit(*blobs(60)).predict_proba(blobs(60)[0])
    hook = register_module_forward_hook(lambda module, args, out: out * 0.5)
    try:
        with pytest.raises(UncacheableError, match="hooks on all modules"):
            settings()
        with pytest.warns(UserWarning, match="not cached: hooks on all modules were registered"):
            net.fit(*blobs(60))
    finally:
        hook.remove()
    assert not np.array_equal(net.predict_proba(blobs(60)[0]), plain)
