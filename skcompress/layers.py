"""Which parameters are compressed: the weight matrices."""

from collections.abc import Iterator

from torch import nn
from torch.nn import Parameter
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

WEIGHT_PREFIXES = {
    nn.Linear: ("weight",),
    _ConvNd: ("weight",),
    nn.RNNBase: ("weight_",),
    nn.RNNCellBase: ("weight_",),
    nn.MultiheadAttention: ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
}

PARAMETRIZED = "torch.nn.utils.parametrize.remove_parametrizations(layer, {!r})"
# What takes the place of a weight, by the end of its name, and what gives the weight back.
REPLACED = {
    "orig": "torch.nn.utils.prune.remove(layer, {!r}), or remove_spectral_norm(layer, {!r})",
    "g": "torch.nn.utils.remove_weight_norm(layer, {!r})",
    "v": "torch.nn.utils.remove_weight_norm(layer, {!r})",
}


def weight_matrices(module: nn.Module) -> dict[str, Parameter]:
    """Return the weight matrices of linear, convolution, recurrent and attention layers.

    Shared weights appear once, under their first name; a weight that an embedding shares is the
    embedding's, and is left alone.

    Returns
    -------
    weights : dict of Parameter
        By qualified parameter name, in the order of ``module.named_parameters()``.

    Raises
    ------
    ValueError
        If there are none, or if one is computed from other parameters before each forward pass,
        as weight normalization and ``torch.nn.utils.prune`` do.

    Examples
    --------
    >>> from torch import nn
    >>> from skcompress.layers import weight_matrices
    >>> list(weight_matrices(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.GRU(3, 2))))
    ['0.weight', '2.weight_ih_l0', '2.weight_hh_l0']
    """
    check_plain(module)
    seen = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    weights = {}
    for name, layer in module.named_modules():
        prefixes = _prefixes(layer)
        for attribute, parameter in layer._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                if attribute.startswith(prefixes):
                    weights[f"{name}.{attribute}" if name else attribute] = parameter
    if not weights:
        found = sorted({type(m).__name__ for m in module.modules()})
        raise ValueError(
            f"The module has no layer to prune or quantize; found {', '.join(found)}. Those are the"
            " weights of Linear, Conv, RNN, GRU, LSTM and MultiheadAttention."
        )
    return weights


def transposed_groups(module: nn.Module) -> dict[str, int]:
    """Return the numbers of groups of transposed convolutions, by the names of their weights.

    Those weights have their inputs, of all groups, along the first dimension.
    """
    owners = {
        name: module.get_submodule(name.rpartition(".")[0]) for name in weight_matrices(module)
    }
    return {n: layer.groups for n, layer in owners.items() if isinstance(layer, _ConvTransposeNd)}


def _prefixes(layer: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of a layer's weight matrices."""
    return next((p for kind, p in WEIGHT_PREFIXES.items() if isinstance(layer, kind)), ())


def check_plain(module: nn.Module) -> None:
    """Refuse weights that are computed: what is removed from them would come back."""
    for name, layer in module.named_modules():
        for weight, remedy in _computed(layer):
            if weight.startswith(_prefixes(layer)):
                raise ValueError(
                    f"The {weight} of the layer {name!r} is computed from other parameters before"
                    " each forward pass, so that it cannot be changed. Build the module without"
                    f" that, or call {remedy} on a trained one."
                )


def _computed(layer: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the weights of a layer that are computed, and what gives them back."""
    if parametrize.is_parametrized(layer):
        for weight in getattr(layer, "parametrizations"):  # noqa: B009 - unknown to nn.Module
            yield weight, PARAMETRIZED.format(weight)
    for attribute in layer._parameters:
        weight, _, end = attribute.rpartition("_")
        # A parameter of such a name may be the layer's own, and replace nothing.
        if end in REPLACED and hasattr(layer, weight):
            yield weight, REPLACED[end].format(weight, weight)
