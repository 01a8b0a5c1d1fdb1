"""Which parameters are compressed: the weight matrices."""

from torch import nn
from torch.nn import Parameter
from torch.nn.modules.conv import _ConvNd

WEIGHT_PREFIXES = {
    nn.Linear: ("weight",),
    _ConvNd: ("weight",),
    nn.RNNBase: ("weight_",),
    nn.RNNCellBase: ("weight_",),
    nn.MultiheadAttention: ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
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
        If there are none.

    Examples
    --------
    >>> from torch import nn
    >>> from skcompress.layers import weight_matrices
    >>> list(weight_matrices(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.GRU(3, 2))))
    ['0.weight', '2.weight_ih_l0', '2.weight_hh_l0']
    """
    embedded = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    weights = {}
    for name, parameter in module.named_parameters():
        owner, _, attribute = name.rpartition(".")
        prefixes = _prefixes(module.get_submodule(owner))
        if attribute.startswith(prefixes) and id(parameter) not in embedded:
            weights[name] = parameter
    if not weights:
        found = sorted({type(m).__name__ for m in module.modules()})
        raise ValueError(
            f"The module has no layer to prune or quantize; found {', '.join(found)}. Those are the"
            " weights of Linear, Conv, RNN, GRU, LSTM and MultiheadAttention."
        )
    return weights


def _prefixes(layer: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of a layer's weight matrices."""
    return next((p for kind, p in WEIGHT_PREFIXES.items() if isinstance(layer, kind)), ())
