"""What PrunedNet refuses, and what to do instead."""

from torch import nn

from ..refusals import COMMON, DISTILL, Refusal
from ..training.nets import is_frozen, stages
from .criteria import named
from .recovery import CONSTANT_RATE, has_schedule

BUDGETS = ("sparsity", "threshold", "max_weights")

REFUSALS = (
    *COMMON,
    *DISTILL,
    Refusal(
        "two of sparsity, threshold and max_weights",
        lambda p, net: sum(getattr(p, b) is not None for b in BUDGETS) > 1,
        "Give one budget only: sparsity=, threshold= or max_weights=; set the others to None.",
    ),
    Refusal(
        "granularity='2:4' with a budget",
        lambda p, net: p.granularity == "2:4" and any(getattr(p, b) is not None for b in BUDGETS),
        "granularity='2:4' removes half of the weights, which is its budget. Leave sparsity,"
        " threshold and max_weights out, or use granularity='weight'.",
    ),
    Refusal(
        "granularity='2:4' with a scope",
        lambda p, net: p.granularity == "2:4" and p.scope != "global",
        "granularity='2:4' compares only weights in groups of four, so scope has no meaning."
        " Leave scope='global', or use granularity='weight'.",
    ),
    Refusal(
        "threshold with a scope",
        lambda p, net: p.threshold is not None and p.scope != "global",
        "threshold= compares raw scores, not ranks, so scope has no meaning. Leave"
        " scope='global', or give sparsity= instead.",
    ),
    Refusal(
        "criterion='activation' with weights",
        lambda p, net: named(p.criterion) == "activation" and p.granularity != "unit",
        "criterion='activation' ranks units. Set granularity='unit', or use criterion='wanda',"
        " which weighs weights by activations.",
    ),
    Refusal(
        "criterion='obs' with units or '2:4'",
        lambda p, net: named(p.criterion) == "obs" and p.granularity != "weight",
        "criterion='obs' removes single weights. Set granularity='weight', or use"
        " criterion='fisher'.",
    ),
    Refusal(
        "criterion='obs' with schedule='gradual' or 'projected'",
        lambda p, net: named(p.criterion) == "obs" and p.schedule != "one-shot",
        "criterion='obs' solves for all removals at once. Set schedule='one-shot', or use"
        " criterion='fisher'.",
    ),
    Refusal(
        "schedule='projected' with another criterion than 'magnitude'",
        lambda p, net: p.schedule == "projected" and named(p.criterion) != "magnitude",
        "schedule='projected' projects onto the nearest sparse weights, which keeps the largest"
        " magnitudes. Set criterion='magnitude', or use schedule='gradual'.",
    ),
    Refusal(
        "schedule='projected' with threshold",
        lambda p, net: p.schedule == "projected" and p.threshold is not None,
        "schedule='projected' needs a number of weights to keep. Give sparsity= or max_weights=,"
        " or use schedule='gradual'.",
    ),
    Refusal(
        "recovery='none' with schedule='gradual' or 'projected'",
        lambda p, net: p.recovery == "none" and p.schedule != "one-shot",
        "schedule='gradual' and 'projected' prune while the net trains, and recovery='none'"
        " leaves no training. Set schedule='one-shot', or use recovery='fine-tune'.",
    ),
    Refusal(
        "recovery='none' with retrain_epochs or retrain_lr",
        lambda p, net: (
            p.recovery == "none" and not (p.retrain_epochs is None and p.retrain_lr is None)
        ),
        "recovery='none' does not retrain. Leave retrain_epochs and retrain_lr at None, or use"
        " recovery='fine-tune'.",
    ),
    Refusal(
        "distill with recovery='none'",
        lambda p, net: p.distill > 0 and p.recovery == "none" and p.schedule == "one-shot",
        "distill= lets the dense net teach while the pruned net is retrained, and recovery='none'"
        " does not retrain. Leave distill=0.0, or use recovery='fine-tune'.",
    ),
    Refusal(
        "recovery='rewind' with retrain_lr",
        lambda p, net: p.recovery == "rewind" and p.retrain_lr is not None,
        "recovery='rewind' takes its rates from the dense fit. Leave retrain_lr at None, or use"
        " recovery='fine-tune'.",
    ),
    Refusal(
        "recovery='rewind' after a constant learning rate",
        lambda p, net: p.recovery == "rewind" and not has_schedule(p.estimator, net),
        CONSTANT_RATE,
    ),
    Refusal(
        "recovery='scratch' around a module instance",
        lambda p, net: p.recovery == "scratch" and isinstance(net.module, nn.Module),
        "recovery='scratch' builds the module anew, and the net holds an instance. Pass the"
        " module's class with module__ parameters, or use recovery='fine-tune'.",
    ),
    Refusal(
        "recovery='scratch' around another compressed net",
        lambda p, net: (
            p.recovery == "scratch"
            and (p.estimator.estimator if is_frozen(p.estimator) else p.estimator) is not net
        ),
        "recovery='scratch' starts from the net's own initial weights. Wrap the net directly, or"
        " use recovery='fine-tune'.",
    ),
    Refusal(
        "a quantized net",
        lambda p, net: any(getattr(stage, "quantizes", False) for stage in stages(p.estimator)),
        "Retraining after pruning would move quantized weights off their levels. Wrap them the"
        " other way round: QuantizedNet(PrunedNet(net)).",
    ),
)
