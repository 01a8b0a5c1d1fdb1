"""PrunedNet: a skorch net that prunes itself inside ``fit``."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from skorch import NeuralNet
from torch import Tensor, nn

from ..base import BaseCompressedNet
from ..graph import trace
from ..refusals import Refusal
from .._sklearn import Interval, StrOptions
from ..training.isolation import seed_generators, stage_seed
from ..training.loop import Data, retrain
from .activations import example_inputs
from .budgets import Budget
from .criteria import CRITERIA, Criterion
from .granularity import Choose, ChooseUnits, choose_two_of_four, choose_weights
from .layers import prunable_weights
from .obs import check_affordable, compensate
from .recovery import initial_net, learning_rate
from .refusals import BUDGETS, REFUSALS
from .removal import remove_units
from .schedules import SCHEDULES, Pruner, masked_fraction
from .units import find_units

DEFAULT_SPARSITY = 0.5
DEFAULT_EPOCHS = 10


class PrunedNet(BaseCompressedNet):
    """Prune a skorch net inside ``fit``."""

    parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "criterion": [StrOptions(set(CRITERIA)), callable],
        "sparsity": [Interval(Real, 0, 1, closed="left"), None],
        "threshold": [Interval(Real, 0, None, closed="left"), None],
        "max_weights": [Interval(Integral, 1, None, closed="left"), None],
        "granularity": [StrOptions({"weight", "unit", "2:4"})],
        "scope": [StrOptions({"global", "layer", "lamp"})],
        "schedule": [StrOptions({"one-shot", *SCHEDULES})],
        "recovery": [StrOptions({"fine-tune", "rewind", "scratch", "none"})],
        "retrain_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "retrain_lr": [Interval(Real, 0, None, closed="neither"), None],
    }
    refusals: ClassVar[tuple[Refusal, ...]] = REFUSALS

    def __init__(
        self,
        estimator: Any,
        *,
        criterion: str | Criterion = "magnitude",
        sparsity: float | None = None,
        threshold: float | None = None,
        max_weights: int | None = None,
        granularity: str = "weight",
        scope: str = "global",
        schedule: str = "gradual",
        recovery: str = "fine-tune",
        retrain_epochs: int | None = None,
        retrain_lr: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        n_threads: int | None = None,
        verbose: int | bool = 0,
    ) -> None:
        self.estimator = estimator
        self.criterion = criterion
        self.sparsity = sparsity
        self.threshold = threshold
        self.max_weights = max_weights
        self.granularity = granularity
        self.scope = scope
        self.schedule = schedule
        self.recovery = recovery
        self.retrain_epochs = retrain_epochs
        self.retrain_lr = retrain_lr
        self.random_state = random_state
        self.n_threads = n_threads
        self.verbose = verbose

    def _check_module(self, net: NeuralNet, data: Data) -> None:
        weights = prunable_weights(net.module_)
        if self.criterion == "obs":
            check_affordable(weights)
        if self.granularity == "unit":
            self._units(net, data)

    def _compress(self, net: NeuralNet, data: Data, seed: int) -> None:
        inherited = getattr(self.estimator_, "masks_", {})
        n_weights = sum(w.numel() for w in prunable_weights(net.module_).values())
        pruner = Pruner(net, data, self.criterion, self._choice(net, data), inherited)
        self._prune(pruner, seed)
        if self.recovery == "scratch":
            fresh = initial_net(net)
            net.module_.load_state_dict(fresh.module_.state_dict())
            pruner.apply()
        if self.recovery == "scratch" or self.schedule == "one-shot":
            self._recover(pruner, stage_seed(seed, "recovery"))
        self.masks_ = pruner.masks
        if isinstance(pruner.choose, ChooseUnits):
            self.masks_ = self._shrink(net, data, pruner)
        self.sparsity_ = masked_fraction(self.masks_, n_weights)

    def _budget(self) -> Budget:
        given = {name: getattr(self, name) for name in BUDGETS}
        if all(value is None for value in given.values()):
            given["sparsity"] = DEFAULT_SPARSITY
        return Budget(**given)

    def _choice(self, net: NeuralNet, data: Data) -> Choose:
        if self.granularity == "2:4":
            return choose_two_of_four()
        if self.granularity == "unit":
            return ChooseUnits(self._units(net, data), self._budget(), self.scope)
        return choose_weights(self._budget(), self.scope)

    def _units(self, net: NeuralNet, data: Data) -> Any:
        args, kwargs = example_inputs(net, data)
        return find_units(trace(net.module_, args, kwargs), args, kwargs)

    def _prune(self, pruner: Pruner, seed: int) -> None:
        """Set the masks, in one shot or by a schedule while the net trains."""
        seed_generators(stage_seed(seed, "prune"))
        if self.schedule != "one-shot":
            self._retrain(pruner, SCHEDULES[self.schedule](pruner))
            return
        pruner.update()
        if self.criterion == "obs":
            compensate(pruner.net, pruner.data, pruner.masks)

    def _recover(self, pruner: Pruner, seed: int) -> None:
        """Train what stays, under fixed masks."""
        if self.recovery != "none":
            seed_generators(seed)
            self._retrain(pruner, pruner.apply)

    def _retrain(self, pruner: Pruner, after_step: Callable[[float], None]) -> None:
        epochs = self.retrain_epochs
        if epochs is None:
            epochs = pruner.net.max_epochs if self.recovery == "scratch" else DEFAULT_EPOCHS
        retrain(
            pruner.net,
            pruner.data,
            epochs=epochs,
            lr=self.retrain_lr,
            rate=learning_rate(self.recovery, self.estimator_, epochs),
            after_step=after_step,
            verbose=int(self.verbose),
        )

    def _shrink(self, net: NeuralNet, data: Data, pruner: Pruner) -> dict[str, Tensor]:
        """Remove the masked units, and check that nothing else has changed."""
        choose = pruner.choose
        assert isinstance(choose, ChooseUnits)
        args, kwargs = example_inputs(net, data)
        before = output(net.module_, args, kwargs)
        kept = remove_units(net.module_, choose.units, choose.alive)
        check_unchanged(net.module_, before, args, kwargs, kept)
        masks = {}
        for name, weight in prunable_weights(net.module_).items():
            stays = pruner.inherited.get(name)
            if stays is None:
                masks[name] = torch.ones(weight.shape, dtype=torch.bool)
            else:
                masks[name] = stays[kept[name]].view(weight.shape) if name in kept else stays
        return masks


def output(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """Run a module in evaluation mode and return its first output."""
    module.eval()
    with torch.no_grad():
        result = module(*args, **kwargs)
    return result[0] if isinstance(result, tuple) else result


def check_unchanged(
    module: nn.Module, before: Tensor, args: tuple, kwargs: dict[str, Any], changed: Any
) -> None:
    """Refuse a removal after which the module fails or computes something else.

    Raises
    ------
    ValueError
        Naming the layers that became smaller.
    """
    problem = None
    try:
        after = output(module, args, kwargs)
    except Exception as error:  # noqa: BLE001 - whatever the user's forward raises is the reason
        problem = f"its forward pass fails ({error})"
    else:
        tolerance = 1e-4 if before.dtype == torch.float32 else 1e-8
        if after.shape != before.shape or not torch.allclose(
            after, before, rtol=tolerance, atol=tolerance
        ):
            problem = "its forward pass computes something else"
    if problem:
        layers = sorted({name.rpartition(".")[0] for name in changed})
        raise ValueError(
            f"Removing units of {layers} from {type(module).__name__} is not possible: {problem}."
            " Does forward hold a width as a number, such as x.view(-1, 64)? Write x.flatten(1)"
            " or view(len(x), -1) instead, or use granularity='weight'."
        )
