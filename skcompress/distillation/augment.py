"""Synthetic rows of a table, for a teacher to label."""

from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

# Probability that a new row takes a column from its neighbour, and how many times the distance
# between the two is larger than the deviation of what it takes.
SWAP = 0.5
LOCALITY = 2.0


def munge(X: Any, n_copies: int, seed: int) -> Any:
    """Make new rows between each row and its nearest neighbour.

    Each column of a new row is with probability 1/2 the row's own, and otherwise comes from its
    nearest neighbour among the rows (in standardized columns): normal around the neighbour's
    value, with half of their distance as standard deviation. A column of whole numbers takes the
    neighbour's value as it is.

    Source: C. Bucila, R. Caruana and A. Niculescu-Mizil, "Model compression", KDD 2006, MUNGE;
    here neighbours are those among the given rows throughout, where MUNGE changes rows in turn.

    Parameters
    ----------
    X : ndarray or pandas DataFrame of shape (n_samples, n_features)
        Numbers, at least two rows.
    n_copies : int >= 1
        New rows for each row.
    seed : int

    Returns
    -------
    rows : ndarray or DataFrame of shape (n_copies * n_samples, n_features)

    Examples
    --------
    >>> import numpy as np
    >>> from skcompress.distillation.augment import munge
    >>> X = np.array([[0.0, 1.0], [1.0, 1.0], [9.0, 9.0]])  # whole numbers: only swapped
    >>> munge(X, 1, seed=0).shape
    (3, 2)
    """
    table, rng = np.asarray(X, dtype=np.float64), np.random.RandomState(seed % 2**32)
    spread = table.std(0)
    scaled = table / np.where(spread > 0, spread, 1)
    neighbours = NearestNeighbors(n_neighbors=2).fit(scaled).kneighbors(scaled)[1]
    # Of rows that coincide, the first may not be the row itself.
    own = np.arange(len(table))
    nearest = np.where(neighbours[:, 0] == own, neighbours[:, 1], neighbours[:, 0])
    rows, others = np.tile(table, (n_copies, 1)), np.tile(table[nearest], (n_copies, 1))
    whole = (table == np.round(table)).all(0)
    deviation = np.where(whole, 0, np.abs(rows - others) / LOCALITY)
    taken = others + deviation * rng.standard_normal(rows.shape)
    made = np.where(rng.random_sample(rows.shape) < SWAP, taken, rows)
    if not hasattr(X, "iloc"):
        return made.astype(X.dtype)
    frame = X.iloc[np.tile(own, n_copies)].reset_index(drop=True)
    columns = {name: made[:, i] for i, name in enumerate(frame.columns)}
    return frame.assign(**columns).astype(X.dtypes)
