import copy

import pytest
import torch
from torch import nn

from skcompress.pruning.attention import PrunedAttention, keep_heads

N, L, S, E, HEADS = 3, 5, 4, 8, 4


def pair(**params):
    """Return torch's attention and ours with the same weights."""
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(E, HEADS, **params).double().eval()
    ours = copy.deepcopy(layer)
    keep_heads(ours)
    assert type(ours) is PrunedAttention
    assert (ours.num_heads, ours.head_dim, ours.embed_dim) == (HEADS, E // HEADS, E)
    return layer, ours


def inputs(batch_first, cross=False):
    """Return query, key and value."""
    torch.manual_seed(1)
    query = torch.randn(N, L, E, dtype=torch.float64)
    memory = torch.randn(N, S, E, dtype=torch.float64) if cross else query
    if not batch_first:
        query, memory = query.transpose(0, 1), memory.transpose(0, 1)
    return (query, memory, memory) if cross else (query, query, query)


def assert_same(first, second):
    """Compare outputs and attention weights."""
    torch.testing.assert_close(first[0], second[0], rtol=1e-10, atol=1e-10)
    assert (first[1] is None) == (second[1] is None)
    if first[1] is not None:
        torch.testing.assert_close(first[1], second[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cross", [True, False])
@pytest.mark.parametrize(
    "asked",
    [{}, {"need_weights": False}, {"average_attn_weights": False}],
    ids=["weights", "no weights", "weights of each head"],
)
def test_all_heads_give_what_torch_gives(batch_first, bias, cross, asked):
    """With every head left, the two compute the same."""
    theirs, ours = pair(batch_first=batch_first, bias=bias)
    args = inputs(batch_first, cross)
    assert_same(ours(*args, **asked), theirs(*args, **asked))


PADDING = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 1, 1, 1, 1]], dtype=torch.bool)
CAUSAL = torch.ones(L, L, dtype=torch.bool).triu(1)


@pytest.mark.parametrize(
    "masks",
    [
        {"key_padding_mask": PADDING},
        {"key_padding_mask": torch.zeros(N, L).double().masked_fill(PADDING, -torch.inf)},
        {"attn_mask": CAUSAL},
        {"attn_mask": torch.randn(L, L).double()},
        {"attn_mask": CAUSAL, "key_padding_mask": PADDING},
        {"attn_mask": CAUSAL, "is_causal": True},
    ],
    ids=["padding", "additive padding", "causal", "additive", "both", "hint"],
)
@pytest.mark.parametrize("need_weights", [True, False])
def test_masks(masks, need_weights):
    """Masks mean what they mean to torch."""
    theirs, ours = pair(batch_first=True)
    args = inputs(batch_first=True)
    plain = ours(*args, need_weights=need_weights)
    masked = ours(*args, need_weights=need_weights, **masks)
    assert not torch.allclose(plain[0], masked[0])
    assert_same(masked, theirs(*args, need_weights=need_weights, **masks))


def test_causal_without_a_mask():
    """``is_causal`` alone is enough here, where torch asks for the mask as well."""
    theirs, ours = pair(batch_first=True)
    args = inputs(batch_first=True)
    assert_same(ours(*args, is_causal=True), theirs(*args, attn_mask=CAUSAL))


def test_a_mask_for_each_head_is_refused():
    """Nobody knows which of its heads are gone."""
    _, ours = pair(batch_first=True)
    mask = torch.zeros(N * HEADS, L, L).double()
    with pytest.raises(ValueError, match=r"mask for each head .* pass one of shape \(n_queries"):
        ours(*inputs(batch_first=True), attn_mask=mask)


def test_dropout_acts_in_training_only():
    """The dropout of the layer applies to the attention weights."""
    _, ours = pair(batch_first=True, dropout=0.5)
    args = inputs(batch_first=True)
    assert torch.equal(ours(*args)[0], ours(*args)[0])
    ours.train()
    assert not torch.equal(ours(*args)[0], ours(*args)[0])


def test_heads_are_read_from_the_weights():
    """A layer of fewer heads is the sum over these heads."""
    theirs, ours = pair(batch_first=True, bias=False)
    args = inputs(batch_first=True)
    kept = torch.tensor([0, 1, 6, 7])  # the first and the last of four heads
    rows = torch.cat([kept, kept + E, kept + 2 * E])
    with torch.no_grad():
        gone = torch.tensor([2, 3, 4, 5])
        theirs.out_proj.weight[:, gone] = 0
        expected = theirs(*args)[0]
        ours.in_proj_weight = nn.Parameter(ours.in_proj_weight[rows])
        ours.out_proj.weight = nn.Parameter(ours.out_proj.weight[:, kept])
    keep_heads(ours)
    assert ours.num_heads == 2
    torch.testing.assert_close(ours(*args)[0], expected, rtol=1e-10, atol=1e-10)
