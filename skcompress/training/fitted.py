"""What training made of a net, as an entry of the cache, and the net made of it again."""

import importlib
from collections.abc import Iterator
from typing import Any

import torch
from skorch import NeuralNet
from skorch.history import History
from torch import Tensor, nn

from .entries import Entry
from .keys import digest
from .nets import plain_module
from .state import UncacheableError

# Attributes of a layer that are its tensors and parts, or follow from them.
_PARTS = ("_parameters", "_buffers", "_modules", "training", "_flat_weights", "_flat_weight_refs")
# Attributes of a net that are dropped after training, or have an entry of their own.
_DROPPED = ("callbacks", "callbacks_", "history_", "virtual_params_")
_SIMPLE = (bool, int, float, str, list, tuple, set, dict, type(None))


def pack_net(entry: Entry, net: NeuralNet, base: NeuralNet) -> dict[str, Any]:
    """Add the tensors of a net to an entry; return what else it has that `base` has not.

    Parameters
    ----------
    entry : Entry
    net, base : NeuralNet
        Initialized; `base` is what :func:`unpack_net` will be given.

    Raises
    ------
    UncacheableError
        If they differ in more than tensors and plain attributes.
    """
    facts: dict[str, Any] = {
        "attributes": entry.encode(_differences(_settings(net), _settings(base))),
        "history": entry.encode(list(net.history_ or [])),
        "parts": {},
    }
    for name in _part_names(net):
        part, before = getattr(net, name), getattr(base, name)
        if part is not net.module_:
            facts["parts"][name] = _pack_module(entry, name, part, before)
            continue
        facts["parts"][name] = _pack_module(entry, name, plain_module(part), plain_module(before))
        if part is not plain_module(part):
            kind = type(part)
            facts["integers"] = [kind.__module__, kind.__qualname__, entry.encode(part.ranges)]
    return facts


def changed_params(net: NeuralNet, blank: NeuralNet) -> dict[str, Any]:
    """Return the parameters that training changed, such as widths that the data set."""
    names = [n for n in _settings(net) if not n.startswith("_") and not n.endswith("_")]
    before = vars(blank)
    return {n: vars(net)[n] for n in names if n not in before or not _same(vars(net)[n], before[n])}


def unpack_net(
    entry: Entry, facts: dict[str, Any], net: NeuralNet, quantized: dict[str, Any]
) -> None:
    """Turn a net like the `base` of :func:`pack_net` into the one that was packed, in place.

    Parameters
    ----------
    quantized : dict of QuantizedTensor
        What a module that computes in integers is made of; empty for others.
    """
    vars(net).update(entry.decode(facts["attributes"]))
    net.history_ = History(entry.decode(facts["history"]))
    net.module_ = plain_module(net.module_)
    for name, part in facts["parts"].items():
        _unpack_module(entry, name, part, getattr(net, name))
    if "integers" in facts:
        module, kind, ranges = facts["integers"]
        wrapper = getattr(importlib.import_module(module), kind)
        net.module_ = wrapper(net.module_, quantized, entry.decode(ranges))
        net.module_.training = net.module_.module.training


def check_same(net: NeuralNet, rebuilt: NeuralNet) -> None:
    """Refuse to cache a net that its entry does not give back.

    Raises
    ------
    UncacheableError
        Naming the part that differs.
    """
    for name in _part_names(net):
        if digest(getattr(net, name)) != digest(getattr(rebuilt, name)):
            kind = type(getattr(net, name)).__name__
            raise UncacheableError(f"{kind} keeps what it learns elsewhere than in its tensors")


def _part_names(net: NeuralNet) -> list[str]:
    return [name + "_" for name in [*net._modules, *net._criteria]]


def _settings(net: NeuralNet) -> dict[str, Any]:
    parts = [*net._modules, *net._criteria, *net._optimizers]
    without = {*_DROPPED, *parts, *(name + "_" for name in parts)}
    return {name: value for name, value in vars(net).items() if name not in without}


def _differences(values: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    gone = sorted(before.keys() - values.keys())
    if gone:
        raise UncacheableError(f"the attribute {gone[0]!r} was removed")
    missing = object()
    return {n: v for n, v in values.items() if not _same(v, before.get(n, missing))}


def _same(value: Any, before: Any) -> bool:
    if value is before:
        return True
    if type(value) is not type(before):
        return False
    if isinstance(value, _SIMPLE):
        try:
            return bool(value == before)
        except (ValueError, RuntimeError):  # arrays within
            pass
    return digest(value) == digest(before)


def _pack_module(entry: Entry, prefix: str, module: Any, base: Any) -> dict[str, Any]:
    if not isinstance(module, nn.Module):
        if not _same(module, base):
            raise UncacheableError(f"{prefix} is no module, and changes in training")
        return {}
    facts: dict[str, Any] = {"changed": {}, "removed": [], "frozen": []}
    layers = dict(base.named_modules())
    for name, layer in module.named_modules():
        before = layers.get(name)
        if type(layer) is nn.Identity and type(before) is not nn.Identity:
            facts["removed"].append(name)
        elif before is None or type(layer) is not type(before):
            raise UncacheableError(f"the layer {name!r} has become a {type(layer).__name__}")
        elif changed := _differences(_plain(layer), _plain(before)):
            facts["changed"][name] = entry.encode(changed)
    facts["evaluating"] = [name for name, layer in module.named_modules() if not layer.training]
    facts["parameters"] = [name for name, _ in module.named_parameters()]
    facts["frozen"] = [name for name, p in module.named_parameters() if not p.requires_grad]
    for name, tensor in _tensors(module):
        entry.add_tensor(tensor, f"{prefix}.{name}")
    return facts


@torch.no_grad()
def _unpack_module(entry: Entry, prefix: str, facts: dict[str, Any], module: Any) -> None:
    if not facts:
        return
    for name in facts["removed"]:
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, nn.Identity())
    for name, changed in facts["changed"].items():
        vars(module.get_submodule(name)).update(entry.decode(changed))
    parameters, frozen = set(facts["parameters"]), set(facts["frozen"])
    for key, tensor in entry.tensors.items():
        if key.startswith(prefix + "."):
            name = key.removeprefix(prefix + ".")
            _put(module, name, tensor, name in parameters)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen)
    evaluating = set(facts["evaluating"])
    for name, layer in module.named_modules():
        layer.training = name not in evaluating


def _plain(layer: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(layer).items() if name not in _PARTS}


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers, shared ones once."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def _put(module: nn.Module, name: str, tensor: Tensor, is_parameter: bool) -> None:
    """Put a tensor in its place, and in the place of those that are shared with it."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    old = getattr(owner, leaf, None)
    if old is not None and old.shape == tensor.shape and old.dtype == tensor.dtype:
        old.copy_(tensor)
        return
    device = next(module.parameters()).device if old is None else old.device
    # A copy begins where an allocated tensor does: matrix products may depend on that.
    new: Tensor = tensor.to(device, copy=True)
    new = nn.Parameter(new) if is_parameter else new
    setattr(owner, leaf, new)
    for layer in module.modules():
        for attribute, other in [*layer._parameters.items(), *layer._buffers.items()]:
            if other is old and old is not None:
                setattr(layer, attribute, new)
