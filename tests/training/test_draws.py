"""Building modules without drawing weights, and entries whose modules need the draws."""

import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from skcompress import PrunedNet
from skcompress.training import draws
from skcompress.training.draws import WithoutDraws
from skcompress.training.entries import read
from tests.contract_modules import assert_same_state, blobs, classifier, state
from tests.training.cache_modules import entries

X, Y = blobs()


def test_layers_of_torch_are_built_without_draws():
    """Their weights are zero, and norms and other constants what they always are."""
    before = torch.random.get_rng_state()
    with WithoutDraws():
        layers = nn.Sequential(
            nn.Linear(3, 2), nn.Conv1d(2, 2, 2), nn.LSTM(2, 2), nn.Embedding(3, 2), nn.LayerNorm(4)
        )
    assert torch.equal(torch.random.get_rng_state(), before)
    sums = {n: p.abs().sum().item() for n, p in layers.named_parameters()}
    assert sums.pop("4.weight") == 4
    assert set(sums.values()) == {0}
    assert all(p.requires_grad for p in layers.parameters())
    assert nn.Linear(3, 2).weight.abs().sum() > 0


def test_by_name():
    """A tensor may be an argument with a name."""
    tensor = torch.ones(3)
    with WithoutDraws():
        assert nn.init.normal_(tensor=tensor, std=2.0) is tensor
    assert tensor.tolist() == [0, 0, 0]


def test_who_insists_gets_numbers(monkeypatch):
    """A constructor that draws until it likes the numbers comes to an end."""
    monkeypatch.setattr(draws, "_MOST", 5)
    with WithoutDraws():
        n_tries = 1
        while not nn.init.uniform_(torch.empty(3)).any():
            n_tries += 1
    assert n_tries == 6


class Layers(nn.Module):
    """Two layers, and whatever a subclass makes of the first one's weights."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        self.keep(self.layers[0].weight.detach())

    def keep(self, weight):
        pass

    def forward(self, X):
        return self.layers(X)


class Scaled(Layers):
    def keep(self, weight):
        self.scale = weight.abs().mean().item()

    def forward(self, X):
        return self.layers(X) * self.scale


class Shuffled(Layers):
    def keep(self, weight):
        self.order = torch.randperm(4)

    def forward(self, X):
        return self.layers(X[:, self.order])


class Inverted(Layers):
    def keep(self, weight):
        self.solution = torch.linalg.inv(weight[:4])

    def forward(self, X):
        return self.layers(X @ self.solution)


class Noisy(NeuralNetClassifier):
    def initialize_module(self):
        super().initialize_module()
        self.noise = torch.rand(()).item()
        return self


@pytest.mark.parametrize(
    ("settings", "drawn"),
    [
        ({"module": Layers}, False),
        ({"module": Scaled}, True),
        ({"module": Shuffled}, True),
        ({"module": Inverted}, True),
        ({"module": Layers, "kind": Noisy}, True),
    ],
    ids=["tensors", "scale", "order", "inverse", "net"],
)
def test_what_a_module_keeps_of_its_draws(settings, drawn, tmp_path):
    """Entries say whether the numbers are needed, and give back the same net either way."""
    nets = []
    for memory in (None, tmp_path / "cache", tmp_path / "cache"):
        net = classifier(callbacks=None, **settings)
        nets.append(PrunedNet(net, retrain_epochs=1, random_state=0, memory=memory).fit(X, Y))
    facts = [read(path).facts for path in entries(tmp_path / "cache")]
    assert [f["drawn"] for f in facts if "drawn" in f] == [drawn]
    for net in nets[1:]:
        assert_same_state(state(net), state(nets[0]))
        assert (net.predict_proba(X) == nets[0].predict_proba(X)).all()
        for name in ("scale", "noise"):
            for part in ("net_", "estimator_"):
                one, two = (getattr(e, part) for e in (net, nets[0]))
                assert getattr(one.module_, name, None) == getattr(two.module_, name, None)
                assert getattr(one, name, None) == getattr(two, name, None)
