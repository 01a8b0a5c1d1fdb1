"""Batch normalization of a net whose weights change: folded into them, or measured anew."""

from typing import Any

import torch
from skorch import NeuralNet
from skorch.dataset import get_len, unpack_data
from torch import nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm

from ..activations import CONVOLUTIONS, example_inputs, operation
from ..graph import Graph, trace
from ..training.loop import Data, batches

LINEAR = CONVOLUTIONS | {"linear.default"}


@torch.no_grad()
def recalibrate(net: NeuralNet, data: Data) -> None:
    """Measure the statistics of batch normalization anew, in place.

    Rounding shifts what a layer gives, and the statistics of the dense net do not know. They are
    the means and variances of the net's batches, averaged over all rows, as training has them.

    Source: Sun et al., "Hybrid 8-bit floating point training and inference for deep neural
    networks", NeurIPS 2019.
    """
    norms = [m for m in net.module_.modules() if isinstance(m, _BatchNorm)]
    momenta = {norm: norm.momentum for norm in norms if norm.track_running_stats}
    if not momenta:
        return
    net._set_training(False)
    seen = 0
    # Sample weights do not enter: training does not weigh these statistics either.
    for batch in batches(net, Data(data.X, data.y)):
        Xi, _ = unpack_data(batch)
        if seen and get_len(Xi) == 1:
            continue  # a row alone has no variance
        seen += get_len(Xi)
        for norm in momenta:
            norm.train()
            norm.momentum = get_len(Xi) / seen
        net.infer(Xi)
    for norm, momentum in momenta.items():
        norm.eval()
        norm.momentum = momentum


@torch.no_grad()
def fold(net: NeuralNet, data: Data) -> None:
    """Fold each batch normalization into the layer right before it, in place.

    One that follows no linear or convolutional layer, that normalizes another axis than the
    layer's outputs, or that is used elsewhere too, stays.

    Source: Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", CVPR 2018.
    """
    args, kwargs = example_inputs(net, data)
    module = net.module_
    for layer, norm in foldable(trace(module, args, kwargs, any_batch=False)):
        _fold(module.get_submodule(layer), module.get_submodule(norm))
        parent, _, name = norm.rpartition(".")
        setattr(module.get_submodule(parent), name, nn.Identity())


def foldable(graph: Graph) -> list[tuple[str, str]]:
    """Return the names of layers, each with the normalization that alone follows it."""
    pairs = []
    for node in graph.program.graph.nodes:
        if node.op != "call_function" or operation(node) != "batch_norm.default":
            continue
        source, statistics = node.args[0], node.args[3]
        if operation(source) not in LINEAR or statistics is None:
            continue
        used = (source, source.args[1], statistics)
        if all(isinstance(n, Node) and len(n.users) == 1 for n in used) and _same_axis(source):
            names = (graph.parameter_nodes[n.name] for n in used[1:])
            layer, norm = (name.rpartition(".")[0] for name in names)
            pairs.append((layer, norm))
    return pairs


def _same_axis(source: Node) -> bool:
    """Tell whether a layer's outputs lie along the axis that is normalized, the second.

    A linear layer's lie along the last, and rows may have one more axis between them.
    """
    weight: Any = source.args[1]
    return source.meta["val"].dim() == weight.meta["val"].dim()


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    """Let a layer give what the normalization of its outputs gives in evaluation mode."""
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
    factor = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        factor = factor * norm.weight
    shift = -norm.running_mean * factor
    if norm.affine:
        shift = shift + norm.bias
    if bias is not None:
        shift = shift + bias * factor
    weight.mul_(factor.view(-1, *[1] * (weight.dim() - 1)))
    layer.bias = nn.Parameter(shift)
