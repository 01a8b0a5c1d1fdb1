"""What QuantizedNet refuses, and what to do instead."""

from typing import Any

from ..refusals import COMMON, DISTILL, Refusal
from ..training.nets import stages
from .formats import FORMATS

BUDGETS = ("max_bytes", "max_loss")


def _n_budgets(q: Any) -> int:
    return sum(getattr(q, budget) is not None for budget in BUDGETS)


def _wrong_width(q: Any) -> bool:
    return q.bits != "auto" and q.bits not in FORMATS[q.format].widths


def widths_table() -> str:
    """Say which numbers of bits each format comes in."""
    return "; ".join(f"{n!r}: {', '.join(map(str, f.widths))}" for n, f in FORMATS.items())


REFUSALS = (
    *COMMON,
    *DISTILL,
    Refusal(
        "bits that the format does not come in",
        lambda q, net: _wrong_width(q),
        f"The format does not come in that many bits. Choose bits from {widths_table()}.",
    ),
    Refusal(
        "bits='auto' without exactly one of max_bytes and max_loss",
        lambda q, net: q.bits == "auto" and _n_budgets(q) != 1,
        "bits='auto' needs to know how far to go. Give max_bytes= or max_loss=, not both.",
    ),
    Refusal(
        "max_bytes or max_loss with a number of bits",
        lambda q, net: q.bits != "auto" and _n_budgets(q) > 0,
        "max_bytes= and max_loss= choose the bits of each layer. Set bits='auto', or leave them"
        " out.",
    ),
    Refusal(
        "format='codebook' with a granularity other than 'tensor'",
        lambda q, net: q.format == "codebook" and q.granularity not in (None, "tensor"),
        "format='codebook' has one codebook for a tensor. Leave granularity out, or use"
        " format='symmetric'.",
    ),
    Refusal(
        "scale with another format than 'symmetric'",
        lambda q, net: q.scale is not None and q.format != "symmetric",
        "scale= fixes the steps of format='symmetric'. Set that format, or leave scale out.",
    ),
    Refusal(
        "scale with a granularity",
        lambda q, net: q.scale is not None and q.granularity not in (None, "tensor"),
        "scale= is the same for all weights, so granularity has no meaning. Leave one of them out.",
    ),
    Refusal(
        "activations with a format without integers",
        lambda q, net: q.activations is not None and not FORMATS[q.format].is_integer,
        "activations= computes in integers, which format='codebook' and 'power-of-two' do not"
        " have. Set format='symmetric' or 'affine', or activations=None.",
    ),
    Refusal(
        "activations with 16 bits",
        lambda q, net: q.activations is not None and q.bits == 16,
        "activations= multiplies integers of at most 8 bits. Set bits=8 or less, or"
        " activations=None.",
    ),
    Refusal(
        "activations with groups",
        lambda q, net: (
            q.activations is not None and q.granularity not in (None, "tensor", "channel")
        ),
        "activations= needs one scale for each output. Set granularity='channel' or 'tensor', or"
        " activations=None.",
    ),
    Refusal(
        "retrain_lr without retrain_epochs",
        lambda q, net: q.retrain_lr is not None and not q.retrain_epochs,
        "retrain_lr= has no meaning without retraining. Set retrain_epochs to 1 or more, or leave"
        " retrain_lr out.",
    ),
    Refusal(
        "distill without retrain_epochs",
        lambda q, net: q.distill > 0 and not q.retrain_epochs,
        "distill= lets the dense net teach while the rounded net is retrained. Set retrain_epochs"
        " to 1 or more, or leave distill out.",
    ),
    Refusal(
        "a net that is quantized already",
        lambda q, net: any(getattr(stage, "quantizes", False) for stage in stages(q.estimator)),
        "The estimator inside is quantized already, and rounding twice only adds errors. Leave one"
        " of the two QuantizedNets out.",
    ),
)
