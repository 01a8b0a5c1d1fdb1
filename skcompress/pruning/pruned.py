"""PrunedNet: a skorch net that prunes itself inside ``fit``."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from skorch import NeuralNet
from torch import Tensor

from .._sklearn import Interval, StrOptions
from ..activations import example_inputs
from ..base import BaseCompressedNet
from ..layers import transposed_groups, weight_matrices
from ..probe import check_last_batch
from ..refusals import Refusal
from ..training.isolation import seed_generators, stage_seed
from ..training.loop import Data, retrain, training_batches
from ..training.nets import dense_net
from ..training.teaching import check_taught, taught_by
from .budgets import Budget
from .checks import check_criterion, check_removal
from .criteria import CRITERIA, Criterion, named
from .equivalence import remove_checked
from .granularity import Choose, ChooseUnits, choose_two_of_four, choose_units, choose_weights
from .obs import compensate
from .recovery import fine_tune_rate, learning_rate, n_epochs, start_anew
from .refusals import BUDGETS, REFUSALS
from .removal import remaining_masks
from .schedules import SCHEDULES, Pruner, zero_fraction

DEFAULT_SPARSITY = 0.5


class PrunedNet(BaseCompressedNet):
    """Prune a skorch net inside ``fit``.

    ``fit`` trains the wrapped net as it is, then removes weights or units from a copy and
    retrains it, all on the rows that it was given. Cross-validation therefore scores the pruned
    net, and how much to prune is a hyperparameter like any other.

    Parameters
    ----------
    estimator : skorch net, compressed net, or FrozenEstimator of either
        What to prune. A NeuralNetClassifier, NeuralNetBinaryClassifier, NeuralNetRegressor or a
        subclass is cloned and fitted; a frozen one is not trained again, and not changed.
    criterion : str or callable, default="magnitude"
        What is important: ``"magnitude"``, ``"gradient"`` (first-order Taylor), ``"fisher"``
        (second order, diagonal), ``"tempered-fisher"``, ``"obs"`` (exact second order, layer by
        layer), ``"activation"`` (units), ``"wanda"``, ``"random"`` (the control), or a function
        ``(net, X, y, sample_weight)`` that returns non-negative scores shaped like the weights,
        by parameter name.
    sparsity : float in [0, 1), default=None
        Fraction that goes: of the prunable weights, or of the removable units. With no budget
        at all, half goes.
    threshold : float >= 0, default=None
        Everything whose score is below goes. With the magnitude, no weight that is left is below.
    max_weights : int >= 1, default=None
        At most as many prunable weights stay, also where units are removed.
    granularity : {"weight", "unit", "2:4"}, default="weight"
        Single weights are set to zero; units (neurons, channels, hidden units, heads) are taken
        out, so that the module is smaller; "2:4" keeps two of every four neighbouring inputs.
    scope : {"global", "layer", "lamp"}, default="global"
        Rank scores over all layers, within each layer, or over all by the LAMP score.
    schedule : {"gradual", "one-shot", "projected"}, default="gradual"
        Prune along a cubic ramp while the net retrains, all at once before it retrains, or by
        projecting onto the largest weights in turns with dense training.
    recovery : {"fine-tune", "rewind", "scratch", "none"}, default="fine-tune"
        Retrain with a rate that falls as a cosine; with the last rates of the dense fit's
        schedule; from new initial weights, keeping only the masks or widths; or not at all.
    retrain_epochs : int >= 1, default=None
        Epochs of retraining. None means 10, or for "scratch" the net's own ``max_epochs``.
    retrain_lr : float > 0, default=None
        First learning rate of retraining. None means the optimizer's own, and for "fine-tune" 5
        times as much if the optimizer divides by the size of the gradient, as Adam does.
    distill : float in [0, 1], default=0.0
        The dense net stays on as teacher while the net is pruned and retrained: the loss is
        ``(1 - distill)`` of the net's own and `distill` of the divergence from the dense net
        [4]_, or for a regressor of the squared difference.
    distill_temperature : float > 0, default=None
        Temperature of both nets in that divergence. None means 2.
    random_state : int, RandomState instance or None, default=None
        Seeds every stage. An integer gives the same bits at an equal number of threads.
    n_threads : int >= 1, default=None
        Threads of torch during ``fit``; None leaves them as they are.
    memory : str, path, joblib.Memory or CacheFolder, default=None
        Folder that keeps this fit and those within it, given an integer `random_state`.
    verbose : int or bool, default=0
        Print the progress of training if positive; replaces the wrapped net's own setting.

    Attributes
    ----------
    estimator_ : estimator
        The fitted inner estimator: the dense net.
    net_ : skorch net
        The pruned net, for prediction: plain modules, no hooks, no optimizer.
    masks_ : dict of bool Tensor
        What stays of each prunable weight of ``net_``, by parameter name.
    sparsity_ : float
        Fraction of the dense net's prunable weights that are zero or gone.
    unremovable_ : dict of str
        Only with ``granularity="unit"``: why some units of a layer stay, by parameter name.
    classes_ : ndarray of shape (n_classes,)
        Only for classifiers: the labels.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features,)
        Of array inputs; the names where `X` has names that are all strings.

    Raises
    ------
    ValueError
        If the data, the module or the combination of parameters has no meaning.

    Notes
    -----
    Prunable are the weight matrices of linear, convolutional, recurrent and attention layers,
    shared ones once; never biases, norms or embeddings.

    The user's callbacks act in the dense fit as they do in skorch. In retraining, which has a
    length of its own and sees every row, only their ``on_grad_computed`` is called, which is
    where gradients are clipped; parameters that a Freezer froze stay frozen, though pruned.

    References
    ----------
    .. [1] S. Han et al., "Learning both weights and connections for efficient neural networks",
       NIPS 2015.
    .. [2] Michael Zhu and Suyog Gupta, "To prune, or not to prune", 2017.
    .. [3] A. Renda et al., "Comparing rewinding and fine-tuning in neural network pruning",
       ICLR 2020.
    .. [4] G. Hinton et al., "Distilling the knowledge in a neural network", 2015.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import cross_val_score
    >>> from torch import nn
    >>> from skcompress import PrunedNet
    >>> class MLP(nn.Module):
    ...     def __init__(self, hidden=64):
    ...         super().__init__()
    ...         self.layers = nn.Sequential(
    ...             nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    ...     def forward(self, X):
    ...         return self.layers(X)
    >>> net = NeuralNetClassifier(
    ...     MLP, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=0.01,
    ...     max_epochs=10, train_split=None)
    >>> X, y = load_digits(return_X_y=True)
    >>> pruned = PrunedNet(net, sparsity=0.9, retrain_epochs=5, random_state=0)
    >>> scores = cross_val_score(pruned, X / 16, y, cv=3)
    >>> bool(scores.mean() > 0.85)
    True
    """

    parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "criterion": [StrOptions(CRITERIA.keys()), callable],
        "sparsity": [Interval(Real, 0, 1, closed="left"), None],
        "threshold": [Interval(Real, 0, None, closed="left"), None],
        "max_weights": [Interval(Integral, 1, None, closed="left"), None],
        "granularity": [StrOptions({"weight", "unit", "2:4"})],
        "scope": [StrOptions({"global", "layer", "lamp"})],
        "schedule": [StrOptions({"one-shot", *SCHEDULES})],
        "recovery": [StrOptions({"fine-tune", "rewind", "scratch", "none"})],
        "retrain_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "retrain_lr": [Interval(Real, 0, None, closed="neither"), None],
        "distill": [Interval(Real, 0, 1, closed="both")],
        "distill_temperature": [Interval(Real, 0, None, closed="neither"), None],
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
        distill: float = 0.0,
        distill_temperature: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        n_threads: int | None = None,
        memory: Any = None,
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
        self.distill = distill
        self.distill_temperature = distill_temperature
        self.random_state = random_state
        self.n_threads = n_threads
        self.memory = memory
        self.verbose = verbose

    def _check_module(self, net: NeuralNet, data: Data) -> None:
        scores = {n: weight.detach().abs() for n, weight in weight_matrices(net.module_).items()}
        if self.recovery != "none":
            check_last_batch(net, data.X, len(data.y))
        if self.distill:
            check_taught(net, data)
        check_criterion(self.criterion, net, data)
        choose = self._choice(net, data)
        if self.threshold is None:
            # Any scores tell whether the budget can be met; only units need to be ranked for it.
            choose(scores, float(isinstance(choose, ChooseUnits)))
        if isinstance(choose, ChooseUnits):
            check_removal(net, data, choose)

    def _compress(self, net: NeuralNet, data: Data, seed: int) -> None:
        inherited = getattr(self.estimator_, "masks_", {})
        # An inner stage may have removed units for good.
        dense = dense_net(self.estimator_)
        n_weights = sum(w.numel() for w in weight_matrices(dense.module_).values())
        # Scores are by the net's own loss: that of its teacher is flat where it starts.
        pruner = Pruner(net, data, self.criterion, self._choice(net, data), inherited)
        taught = taught_by(dense, data, self.distill, self.distill_temperature)
        self._prune(pruner, taught, seed)
        if self.recovery == "scratch":
            seed_generators(stage_seed(seed, "scratch"))
            start_anew(net, data.X)
            pruner.apply()
        if self.recovery == "scratch" or (self.schedule == "one-shot" and self.recovery != "none"):
            seed_generators(stage_seed(seed, "recovery"))
            self._retrain(pruner, taught, pruner.apply, self.recovery)
        if self.threshold is not None and named(self.criterion) == "magnitude":
            # Weights have moved since the masks were set, and none may be left below.
            pruner.update()
        self.masks_ = pruner.masks
        if isinstance(pruner.choose, ChooseUnits):
            self.masks_ = self._shrink(net, data, pruner)
        self.sparsity_ = zero_fraction(net.module_, n_weights)

    def _budget(self) -> Budget:
        given = {name: getattr(self, name) for name in BUDGETS}
        none = all(value is None for value in given.values())
        return Budget(sparsity=DEFAULT_SPARSITY) if none else Budget(**given)

    def _choice(self, net: NeuralNet, data: Data) -> Choose:
        if self.granularity == "2:4":
            return choose_two_of_four(transposed_groups(net.module_))
        if self.granularity == "unit":
            average = named(self.criterion) == "activation"
            return choose_units(net, data, self._budget(), self.scope, average)
        return choose_weights(self._budget(), self.scope)

    def _prune(self, pruner: Pruner, taught: Data, seed: int) -> None:
        """Set the masks, in one shot or by a schedule while the net trains."""
        seed_generators(stage_seed(seed, "prune"))
        net = pruner.net
        if self.schedule != "one-shot":
            # Masks for a training from scratch are those that fine-tuning finds.
            search = "fine-tune" if self.recovery == "scratch" else self.recovery
            n_steps = len(training_batches(net, taught))
            n_steps *= n_epochs(self.retrain_epochs, search, net)
            self._retrain(pruner, taught, SCHEDULES[self.schedule](pruner, n_steps), search)
            return
        dense = {n: w.detach().clone() for n, w in weight_matrices(net.module_).items()}
        pruner.update()
        if named(self.criterion) == "obs":
            compensate(net, pruner.data, dense, pruner.masks)

    def _retrain(
        self, pruner: Pruner, data: Data, after_step: Callable[[float], None], recovery: str
    ) -> None:
        net, epochs = pruner.net, n_epochs(self.retrain_epochs, recovery, pruner.net)
        own = fine_tune_rate(net)
        retrain(
            net,
            data,
            epochs=epochs,
            lr=self.retrain_lr,
            rate=learning_rate(recovery, self.retrain_lr, self.estimator_, epochs, own),
            after_step=after_step,
            verbose=int(self.verbose),
        )

    def _shrink(self, net: NeuralNet, data: Data, pruner: Pruner) -> dict[str, Tensor]:
        """Remove the masked units; return the masks of what is left."""
        choose, (args, kwargs) = pruner.choose, example_inputs(net, data)
        assert isinstance(choose, ChooseUnits)
        self.unremovable_ = choose.units.stays
        kept = remove_checked(net.module_, choose.units, choose.alive, args, kwargs)
        return remaining_masks(net.module_, pruner.inherited, kept)
