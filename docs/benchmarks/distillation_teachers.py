"""Data, nets and teachers of the distillation benchmark, where worker processes find them."""

from itertools import pairwise

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits, make_classification
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from skorch import NeuralNetClassifier
from torch import nn

from skcompress.distillation.teachers import NetTeacher

# Hidden widths of student and large net.
WIDTHS = {"digits": ((12,), (256, 128)), "tabular": ((8,), (256, 128))}


class MLP(nn.Sequential):
    """A multilayer perceptron of any depth."""

    def __init__(self, widths):
        layers = []
        for first, second in pairwise(widths):
            layers += [nn.Linear(first, second), nn.ReLU()]
        super().__init__(*layers[:-1])


def load(name):
    """Return the rows of a data set; the table is generated, with a tenth of its labels wrong."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return (X / 16).astype(np.float32), y
    X, y = make_classification(
        2000, 20, n_informative=12, n_redundant=4, n_classes=4, n_clusters_per_class=4,
        class_sep=1.5, flip_y=0.1, random_state=0,
    )  # fmt: skip
    return X.astype(np.float32), y


class Remembering(ClassifierMixin, BaseEstimator):
    """A teacher that is fitted once for all the settings that are tried with it."""

    fitted = {}  # noqa: RUF012

    def __init__(self, teacher):
        self.teacher = teacher

    def fit(self, X, y):
        key = joblib.hash((self.teacher.get_params(), X, y))
        if key not in self.fitted:
            self.fitted[key] = self.teacher.fit(X, y)
        self.teacher_ = self.fitted[key]
        self.classes_ = self.teacher_.classes_
        return self

    def predict(self, X):
        return self.teacher_.predict(X)

    def predict_proba(self, X):
        return self.teacher_.predict_proba(X)


def net(data, hidden):
    """Return an unfitted net of a data set; student and large net differ in width alone."""
    n_inputs, n_outputs = {"digits": (64, 10), "tabular": (20, 4)}[data]
    return NeuralNetClassifier(
        MLP, module__widths=(n_inputs, *hidden, n_outputs), criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam, lr=0.005, max_epochs=30, batch_size=64, train_split=None,
        iterator_train__shuffle=True, verbose=0,
    )  # fmt: skip


def teachers(data):
    """Return the teachers of a data set by name."""
    large = NetTeacher(net(data, WIDTHS[data][1]))
    forest = RandomForestClassifier(200)
    boosting = HistGradientBoostingClassifier()
    return {
        "large net": large,
        "forest": forest,
        "boosting": boosting,
        "ensemble": VotingClassifier(
            [("net", large), ("forest", forest), ("boosting", boosting)], voting="soft"
        ),
    }
