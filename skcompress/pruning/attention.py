"""Multi-head attention with fewer heads than its width would take."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


class PrunedAttention(nn.MultiheadAttention):
    """Self-attention of which some heads are gone.

    ``torch.nn.MultiheadAttention`` insists that its heads fill its width. This one reads the
    number of heads from its weights, of shape (3 * n_heads * head_dim, embed_dim) and
    (embed_dim, n_heads * head_dim). It is made by :func:`keep_heads`, never by its constructor.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute attention; see ``torch.nn.MultiheadAttention.forward``."""
        q, k, v = (
            (x if self.batch_first else x.transpose(0, 1))
            .unflatten(-1, (-1, self.head_dim))
            .transpose(1, 2)
            for x in self._project(query, key, value)
        )
        scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
        for mask in (self._causal(attn_mask, is_causal, scores), _padding(key_padding_mask)):
            if mask is not None:
                scores = scores + _additive(mask, scores.dtype)
        weights = functional.dropout(scores.softmax(-1), self.dropout, self.training)
        out = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        if not self.batch_first:
            out = out.transpose(0, 1)
        if not need_weights:
            return out, None
        return out, weights.mean(1) if average_attn_weights else weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> Iterable[Tensor]:
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query is key is value:
            # A single operation, so that the units of this layer can be traced once more.
            return functional.linear(query, weight, bias).chunk(3, -1)
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        return map(functional.linear, (query, key, value), weight.chunk(3), biases)

    def _causal(self, mask: Tensor | None, is_causal: bool, scores: Tensor) -> Tensor | None:
        if mask is None and is_causal:
            return torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        if mask is not None and mask.dim() == 3:
            raise ValueError(
                "A mask for each head does not fit attention of which heads were removed; pass"
                " one of shape (n_queries, n_keys)."
            )
        return mask


def _padding(mask: Tensor | None) -> Tensor | None:
    """Give a padding mask of shape (n_samples, n_keys) room for heads and queries."""
    return None if mask is None else mask[:, None, None, :]


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -torch.inf)


def keep_heads(layer: nn.MultiheadAttention) -> None:
    """Let attention go on with the heads and widths that its weights still have, in place."""
    layer.__class__ = PrunedAttention
    layer.num_heads = layer.in_proj_weight.shape[0] // (3 * layer.head_dim)
    layer.embed_dim = layer.kdim = layer.vdim = layer.in_proj_weight.shape[1]
    # Keeps TransformerEncoderLayer off its fused path, which assumes the full width.
    layer._qkv_same_embed_dim = False
