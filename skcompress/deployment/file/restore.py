"""Put the weights of a file back into a net, to train on."""

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from skorch import NeuralNet
from torch import Tensor, nn

from ...graph import trace
from ...layers import weight_matrices
from ...pruning import PrunedNet
from ...pruning.removal import remove_units
from ...pruning.schedules import zero_fraction
from ...pruning.units import Units, find_units
from ...quantization.integers import IntegerModule
from ...training.nets import stages, without_nested_tensors, wrapped_net
from .building import activation_ranges, read_classes, read_specs
from .capture import arguments, computes
from .contents import Steps, flat_steps
from .errors import check
from .interpreter import Interpreter
from .layout import Parts
from .order import alike
from .steps import STEPS, read_steps


def restore(parts: Parts, estimator: Any) -> Any:
    """Return a copy of an estimator that has the weights of a file.

    A skorch net is initialized; a compressed net is fitted, and what it wraps is a frozen net of
    the same weights. A pipeline's steps are fitted as those of the file.

    Raises
    ------
    FileError
        If the file does not say what it should.
    TypeError
        If there is no skorch net in `estimator`.
    ValueError
        If the estimator's steps or the module's parameters are not those of the file.
    """
    if isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    described, about = parts.about.get("steps", []), parts.about
    specs = read_specs(about["inputs"]) if "inputs" in about else None
    steps = read_steps(described, parts.tensors, specs)
    if isinstance(estimator, Pipeline):
        return _into_pipeline(estimator, steps, parts)
    net = wrapped_net(estimator)
    if steps:
        kinds = ", ".join(type(step).__name__ for _, step in steps)
        raise ValueError(
            f"The file is of a pipeline, with the steps {kinds} before the net. Pass"
            f" estimator=make_pipeline(..., {type(estimator).__name__}) of the same steps; its last"
            " step is then the net."
        )
    return _into_net(estimator, net, parts)


def _into_pipeline(pipeline: Pipeline, steps: Steps, parts: Parts) -> Pipeline:
    """Return a copy of a pipeline whose steps are fitted as those of the file."""
    fresh = inner = clone(pipeline)
    own = flat_steps(inner.steps[:-1])
    while isinstance(inner.steps[-1][1], Pipeline):
        inner = inner.steps[-1][1]
        own += flat_steps(inner.steps[:-1])
    kinds = [[type(step).__name__ for _, step in some] for some in (steps, own)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"The file is of a pipeline with the steps {kinds[0]} before the net; that of"
            f" estimator= has {kinds[1]}. Pass one of the same steps."
        )
    for (_, known), (_, step) in zip(steps, own, strict=True):
        # Parameters that only fit reads, such as PCA's n_components, stay as they are.
        unsaved = known.get_params().keys() - {*STEPS[type(known)][0]} | {"_sklearn_output_config"}
        step.__dict__.update({k: v for k, v in vars(known).items() if k not in unsaved})
    name, last = inner.steps[-1]
    inner.steps[-1] = (name, _into_net(last, wrapped_net(last), parts))
    return fresh


def _into_net(estimator: Any, net: NeuralNet, parts: Parts) -> Any:
    _check_kind(net, parts.about)
    net = clone(net).initialize()
    module = net.module_
    without_nested_tensors(module)  # the file's operations are
    n_weights = sum(w.numel() for w in weight_matrices(module).values())
    _fold_norms(module, parts)
    _shrink(module, parts)
    _fill(module, parts)
    _check_forward(module, parts)
    # The optimizer is to move the parameters that are left.
    net.initialize_optimizer() if hasattr(net, "initialize_optimizer") else None
    if isinstance(estimator, NeuralNet):
        return net
    fitted = _fitted(estimator, net, parts)
    if any(isinstance(stage, PrunedNet) for stage in stages(estimator)):
        fitted.sparsity_ = zero_fraction(module, n_weights)
    return fitted


def _check_kind(net: NeuralNet, about: dict[str, Any]) -> None:
    """Refuse a classifier's file for a regressor, and a file that says nothing of it."""
    kind = about.get("kind")
    check(kind in ("classifier", "regressor"), "it is neither a classifier nor a regressor")
    good = kind == "classifier" or about.get("columns") in (1, 2)
    check(good, "it does not say of what shape its predictions are")
    own = "classifier" if is_classifier(net) else "regressor"
    if kind != own:
        raise ValueError(
            f"The file is of a {kind}, and {type(net).__name__} is a {own}. Pass a net of the kind"
            " that was saved."
        )


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _fold_norms(module: nn.Module, parts: Parts) -> None:
    """Leave out the normalizations that were folded into the layers before them."""
    for name, layer in list(module.named_modules()):
        own = [f"{name}.{n}" for n in _tensors(layer)]
        is_norm = isinstance(layer, nn.modules.batchnorm._BatchNorm)
        if is_norm and own and not any(n in parts.tensors for n in own):
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, nn.Identity())
    for name, tensor in parts.tensors.items():
        owner, _, attribute = name.rpartition(".")
        layer = dict(module.named_modules()).get(owner)
        if attribute == "bias" and getattr(layer, "bias", tensor) is None:
            assert layer is not None
            layer.bias = nn.Parameter(tensor.clone())


def _shrink(module: nn.Module, parts: Parts) -> None:
    """Take as many units out of a fresh module as are missing in the file."""
    tensors = _tensors(module)
    smaller = [
        n for n, t in tensors.items() if n in parts.tensors and t.shape != parts.tensors[n].shape
    ]
    if not smaller:
        return
    args, kwargs = arguments(read_specs(parts.about.get("inputs")), 2)
    graph = trace(module, args, kwargs, any_batch=False)
    units = find_units(graph, args, kwargs)
    remove_units(module, units, _alive(units, parts))


def _alive(units: Units, parts: Parts) -> Tensor:
    """Choose the units that stay: which ones does not matter, for their weights are set next.

    Units that stand in the same places are interchangeable. The length of each dimension in the
    file says how many of them are left.
    """
    alive = torch.ones(units.n_units, dtype=torch.bool)
    groups = alike(units)
    waiting = set(range(len(groups)))
    progress = True
    while waiting and progress:
        progress = False
        for slot, labels in units.slots.items():
            name, dim = slot
            if name not in parts.tensors or dim >= parts.tensors[name].dim():
                continue
            here = [g for g in waiting if bool(torch.isin(labels, groups[g]).any())]
            if len(here) != 1:
                continue
            members = groups[here[0]]
            known = labels[~torch.isin(labels, members)]
            fixed = int((known < 0).sum()) + int(alive[known[known >= 0]].sum())
            each = int((labels == members[0]).sum())
            kept = (parts.tensors[name].shape[dim] - fixed) // each
            alive[members[max(kept, 0) :]] = False
            waiting.discard(here[0])
            progress = True
    return alive


@torch.no_grad()
def _fill(module: nn.Module, parts: Parts) -> None:
    """Set the parameters and buffers of a module to those of a file."""
    tensors = _tensors(module)
    # Constants have names that begin with a dot, which none of a module's tensors has.
    given = {name: t for name, t in parts.tensors.items() if not name.startswith(".")}
    missing, extra = sorted(tensors.keys() - given.keys()), sorted(given.keys() - tensors.keys())
    if missing or extra:
        raise ValueError(
            f"The file is not one of a {type(module).__name__} like this: it lacks {missing}, and"
            f" has {extra} besides. Pass a net with the module that was saved."
        )
    for name, tensor in tensors.items():
        if tensor.shape != given[name].shape:
            raise ValueError(
                f"{name!r} has shape {tuple(tensor.shape)} in the {type(module).__name__} and"
                f" {tuple(given[name].shape)} in the file. Pass a net with the module's parameters"
                " that it was saved with."
            )
        tensor.copy_(given[name])


def _check_forward(module: nn.Module, parts: Parts) -> None:
    """Warn where a module of the same parameters computes something else than the file."""
    about, tensors = parts.about, list(parts.tensors.values())
    if "operations" not in about:
        return
    specs = read_specs(about.get("inputs"))
    interpreter = Interpreter(about["operations"], len(specs), len(tensors))
    if not computes(module.eval(), specs, interpreter, tensors, n_rows=5):
        warnings.warn(
            f"With the weights of the file, {type(module).__name__} gives other outputs than the"
            " file itself: its class has changed, or it draws something else than parameters and"
            " buffers when it is made. load(path) predicts what was saved.",
            UserWarning,
            stacklevel=2,
        )


def _fitted(estimator: Any, net: NeuralNet, parts: Parts) -> Any:
    """Return a compressed net that is fitted, around a net with the file's weights."""
    fitted, about = clone(estimator), parts.about
    if "inputs" not in about or (about["kind"] == "classifier" and "classes" not in about):
        raise ValueError(
            "The file is of a skorch net by itself, saved with graph=False: it says neither which"
            " rows nor which labels there are. Load it into the skorch net, and wrap that."
        )
    module = net.module_
    if "activations" in about:
        net.module_ = IntegerModule(module, parts.quantized, activation_ranges(about, parts))
    fitted.net_, fitted.estimator_ = net, FrozenEstimator(net)
    fitted.masks_, fitted.quantized_ = dict(parts.masks), dict(parts.quantized)
    fitted.bits_ = {name: q.bits for name, q in parts.quantized.items()}
    fitted._row_specs = read_specs(about.get("inputs"))
    names = [name for name, _, _ in fitted._row_specs]
    fitted._input_names = None if names[0] is None else sorted(names)
    fitted._input_shapes = str([tuple(shape) for _, _, shape in fitted._row_specs])
    if names[0] is None and fitted._row_specs[0][2]:
        fitted.n_features_in_ = fitted._row_specs[0][2][0]
    if "names" in about:
        check(isinstance(about["names"], list), "its names of features are not a list")
        fitted.feature_names_in_ = np.array([str(n) for n in about["names"]], dtype=object)
    if about["kind"] == "classifier":
        fitted.classes_ = read_classes(about.get("classes"))
    else:
        fitted.target_ndim_ = about["columns"]
    return fitted
