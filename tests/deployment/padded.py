"""Sentences of several lengths, and a net that leaves their padding out of attention."""

import numpy as np
from torch import nn


def sentences(n_rows=60, length=6):
    """Return words with zeros after the end, and labels."""
    rng = np.random.default_rng(0)
    X = rng.integers(1, 10, (n_rows, length))
    X[np.arange(length) >= rng.integers(2, length, n_rows)[:, None]] = 0
    return X, X[:, 0] % 3


class PaddedEncoder(nn.Module):
    """torch's own encoder with its default settings, and the mean over all steps.

    Words of a number are padding; with None, none are.
    """

    def __init__(self, nested=True, padding=0):
        super().__init__()
        self.padding = padding
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.words = nn.Embedding(10, 8, padding_idx=0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.last = nn.Linear(8, 3)

    def forward(self, X):
        mask = None if self.padding is None else self.padding == X
        return self.last(self.encoder(self.words(X), src_key_padding_mask=mask).mean(1))
