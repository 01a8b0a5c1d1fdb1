"""A file is all that another process needs: it cannot import the module's class."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import torch
from torch import nn

import skcompress
from skcompress import save
from tests.deployment.file.modules import pruned, quantized
from tests.pruning_modules import classification, classifier

SCRIPT = """
    import sys
    import numpy as np
    from skcompress import load
    sys.addaudithook(lambda event, args: sys.exit(event) if event == "pickle.find_class" else None)
    for i in range(2):
        folder = sys.argv[1]
        loaded = load(f"{folder}/{i}.skc")
        np.save(f"{folder}/{i}.npy", loaded.predict_proba(np.load(f"{folder}/{i}_rows.npy")))
    assert not any(name.split(".")[0] == "tests" for name in sys.modules)
"""


class Residual(nn.Module):
    """Branches that meet again, a skip connection, and a choice by the number of rows."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(6, 5), nn.Linear(6, 5)
        self.body, self.head = nn.Linear(5, 5), nn.Linear(10, 3)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, X):
        left, right = torch.relu(self.left(X)), torch.tanh(self.right(X))
        left = left + self.norm(self.body(left))
        return self.head(torch.cat([left, right * left], 1)).view(len(X), -1)


class Steps(nn.Module):
    """A recurrent layer over both directions, and a second over its outputs."""

    def __init__(self):
        super().__init__()
        self.first = nn.LSTM(4, 6, batch_first=True, bidirectional=True)
        self.second = nn.GRU(12, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, X):
        outputs, _ = self.second(self.first(X)[0])
        return self.head(outputs[:, -1])


def test_classes_of_the_user_are_not_needed(tmp_path):
    """A process that cannot import them predicts the same."""
    estimators = []
    for i, (module, shape) in enumerate([(Residual, (6,)), (Steps, (5, 4))]):
        X, y = classification(shape=shape)
        estimators.append(quantized(pruned(classifier(module), granularity="unit")).fit(X, y))
        save(estimators[-1], tmp_path / f"{i}.skc")
        np.save(tmp_path / f"{i}_rows.npy", X)
    # The package alone, without the tests beside it.
    (tmp_path / "skcompress").symlink_to(Path(skcompress.__file__).parent)
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for i, estimator in enumerate(estimators):
        X = np.load(tmp_path / f"{i}_rows.npy")
        expected = estimator.predict_proba(X)
        np.testing.assert_allclose(np.load(tmp_path / f"{i}.npy"), expected, rtol=1e-4, atol=1e-6)
