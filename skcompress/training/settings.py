"""Settings of the process that a result depends on, down to its last bit."""

from typing import Any

import sklearn
import torch
from torch.nn.modules import module as modules

from .state import UncacheableError

backends: Any = torch.backends
_DEVICES = ("cpu", "cuda")
# Ways of computing attention, which are switched for all devices at once.
_ATTENTION = ("flash", "mem_efficient", "math", "cudnn")
# Where torch says with what precision numbers of 32 bits are multiplied.
_PRECISIONS = (
    backends, backends.mkldnn, backends.mkldnn.conv, backends.mkldnn.matmul, backends.mkldnn.rnn,
    backends.cuda.matmul, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn,
)  # fmt: skip


def settings() -> list:
    """Return what is set for all of torch and scikit-learn.

    Raises
    ------
    UncacheableError
        If there are hooks on all modules, whose code is not looked into.
    """
    if modules._has_any_global_hook():
        raise UncacheableError("hooks on all modules were registered")
    return [
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        backends.mkldnn.enabled,
        backends.mha.get_fastpath_enabled(),
        backends.cudnn.enabled,
        backends.cudnn.benchmark,
        backends.cudnn.deterministic,
        [part.fp32_precision for part in _PRECISIONS],
        [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _DEVICES],
        [getattr(backends.cuda, f"{kind}_sdp_enabled")() for kind in _ATTENTION],
        sklearn.get_config()["enable_metadata_routing"],
    ]
