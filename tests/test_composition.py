"""Every technique around every other: it works, or the error names the order that does."""

from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold

from skcompress import DistilledNet, PrunedNet, QuantizedNet, size_in_bytes
from skcompress.layers import weight_matrices
from skcompress.training.nets import plain_module
from tests.contract_modules import Classifier, assert_same_state, blobs, classifier, state

X, Y = blobs()
LABELS = np.array(["a", "b", "c"])[Y]


def p(inner):
    """Prune 70% of the weights."""
    return PrunedNet(inner, sparsity=0.7, retrain_epochs=2, random_state=0)


def q(inner):
    """Round to three bits and train on."""
    return QuantizedNet(inner, bits=3, retrain_epochs=2, random_state=0)


def d(inner):
    """Teach by a small forest."""
    teacher = RandomForestClassifier(5, max_depth=4, random_state=0)
    return DistilledNet(inner, teacher, cv=2, random_state=0)


WORK = {
    "P(P)": lambda net: PrunedNet(p(net), sparsity=0.8, retrain_epochs=8, random_state=0),
    "P(D)": lambda net: p(d(net)),
    "Q(P)": lambda net: q(p(net)),
    "Q(D)": lambda net: q(d(net)),
    "D(P)": lambda net: d(p(net)),
    "D(Q)": lambda net: d(q(net)),
    "Q(P(D))": lambda net: q(p(d(net))),
    "Q(D(P))": lambda net: q(d(p(net))),
    "D(Q(P))": lambda net: d(q(p(net))),
}
REFUSED = {
    "P(Q)": (lambda net: p(q(net)), r"QuantizedNet\(PrunedNet\(net\)\)"),
    "P(D(Q))": (lambda net: p(d(q(net))), r"QuantizedNet\(PrunedNet\(net\)\)"),
    "Q(Q)": (lambda net: q(q(net)), "Leave one of the two QuantizedNets out"),
    "Q(D(Q))": (lambda net: q(d(q(net))), "Leave one of the two QuantizedNets out"),
    "D(D)": (lambda net: d(d(net)), r"DistilledNet\(student, teacher=\[first, second\]\)"),
    "D(P(D))": (lambda net: d(p(d(net))), r"DistilledNet\(student, teacher=\[first, second\]\)"),
}


def weights_of(fitted):
    """Return the weight matrices that predict."""
    return weight_matrices(plain_module(fitted.net_.module_))


@pytest.fixture(scope="module")
def fitted():
    """Return every composition that works, fitted."""
    return {name: make(classifier()).fit(X, LABELS) for name, make in WORK.items()}


@pytest.mark.parametrize("name", WORK)
class TestWhatWorks:
    def test_it_predicts(self, name, fitted):
        assert fitted[name].score(X, LABELS) > 0.6
        assert fitted[name].classes_.tolist() == ["a", "b", "c"]

    def test_what_was_pruned_stays_zero(self, name, fitted):
        """At every stage, also where the next one trains on."""
        if "P" not in name:
            pytest.skip("nothing is pruned")
        weights, n_kept = weights_of(fitted[name]), 0
        for weight_name, mask in fitted[name].masks_.items():
            assert (weights[weight_name][~mask] == 0).all()
            n_kept += int(mask.sum())
        expected = 0.8 if name == "P(P)" else 0.7
        assert fitted[name].sparsity_ == pytest.approx(expected, abs=0.01)
        total = sum(weight.numel() for weight in weights.values())
        assert n_kept == pytest.approx((1 - expected) * total, abs=1)

    def test_what_was_rounded_stays_on_its_levels(self, name, fitted):
        """The integers are those of the weights that predict."""
        if "Q" not in name:
            pytest.skip("nothing is rounded")
        for weight_name, tensor in fitted[name].quantized_.items():
            assert torch.equal(weights_of(fitted[name])[weight_name], tensor.dequantize())
            assert tensor.bits == fitted[name].bits_[weight_name] == 3

    def test_the_size_counts_every_stage(self, name, fitted):
        """Fewer bytes than the dense net where something is pruned or rounded."""
        dense = size_in_bytes(classifier().fit(X.astype(np.float32), Y))
        assert size_in_bytes(fitted[name]) < dense

    def test_again_with_the_same_bits(self, name, fitted):
        """One seed decides all stages."""
        again = WORK[name](classifier()).fit(X, LABELS)
        assert_same_state(state(again), state(fitted[name]))

    def test_frozen_inside(self, name, fitted):
        """A stage that was fitted elsewhere is taken as it is."""
        if name.startswith("D"):
            pytest.skip("a student is trained")
        outer = WORK[name](classifier())
        outer.set_params(estimator=FrozenEstimator(fitted[name].estimator_))
        assert outer.fit(X, LABELS).score(X, LABELS) > 0.6


@pytest.mark.parametrize(
    "student",
    [
        lambda net: QuantizedNet(net, activations="static", random_state=0),
        lambda net: QuantizedNet(net, bits=4, rounding="reconstruct", random_state=0),
        lambda net: QuantizedNet(net, bits="auto", max_loss=0.1, activations="dynamic"),
        lambda net: PrunedNet(net, criterion="obs", schedule="one-shot", random_state=0),
        lambda net: PrunedNet(net, criterion="wanda", random_state=0),
    ],
    ids=["static", "reconstruct", "auto", "obs", "wanda"],
)
@pytest.mark.parametrize("weights", [None, np.ones(len(Y))], ids=["", "weighted"])
def test_taught_students_look_at_their_activations(student, weights):
    """What enters their layers is rows, without what the teacher says of them."""
    fitted = d(student(classifier())).fit(X, LABELS, sample_weight=weights)
    assert fitted.score(X, LABELS) > 0.6


@pytest.mark.parametrize("name", ["P(P)", "Q(P)"])
def test_frozen_at_the_core_keeps_its_labels(name):
    """A net frozen two stages down is trained on alike whatever its classes are called."""
    rows = Y != 0
    outer = {}
    for labels in (LABELS, Y):
        core = PrunedNet(classifier(), sparsity=0.3, random_state=0).fit(X, labels)
        outer[labels.dtype.kind] = WORK[name](FrozenEstimator(core)).fit(X[rows], labels[rows])
    assert outer["U"].classes_.tolist() == ["a", "b", "c"]
    assert_same_state(state(outer["U"]), state(outer["i"]))
    assert (outer["U"].predict(X) == outer["U"].classes_[outer["i"].predict(X)]).all()


class Recording(RandomForestClassifier):
    """A teacher that notes the rows and labels of each fit."""

    SEEN: ClassVar[list] = []

    def fit(self, X, y, sample_weight=None):
        self.SEEN.append((X, np.asarray(y), sample_weight))
        return super().fit(X, y, sample_weight)


OUTER = {"P": p, "Q": q, "Q(P)": lambda inner: q(p(inner))}


@pytest.mark.parametrize("outer", OUTER.values(), ids=OUTER)
@pytest.mark.parametrize("labels", [LABELS, Y + 1], ids=["words", "from one"])
def test_frozen_teachers_know_the_labels(outer, labels):
    """A teacher inside is compared by the labels of the user, whatever stands around it."""
    teacher = FrozenEstimator(RandomForestClassifier(20, random_state=0).fit(X, labels))
    student = DistilledNet(classifier(), teacher, alpha=1.0, random_state=0)
    fitted = outer(student).fit(X, labels)
    while not isinstance(fitted, DistilledNet):
        fitted = fitted.estimator_
        assert fitted.score(X, labels) > 0.75
    assert fitted.teacher_score_ == 1.0


@pytest.mark.parametrize("outer", OUTER.values(), ids=OUTER)
def test_teachers_inside_see_what_was_given(outer):
    """Frames stay frames, and splits count rows of no weight."""
    frame = pd.DataFrame(X, columns=list("abcd"))
    weights = np.where(np.arange(len(X)) % 3, 1.5, 0.0)
    splits = list(KFold(3).split(X))
    Recording.SEEN.clear()
    student = DistilledNet(classifier(), Recording(3), cv=splits, random_state=0)
    outer(student).fit(frame, LABELS, sample_weight=weights)
    assert len(Recording.SEEN) == len(splits)
    for (rows, labels, given), (train, _) in zip(Recording.SEEN, splits, strict=True):
        train = train[weights[train] > 0]
        pd.testing.assert_frame_equal(rows, frame.iloc[train])
        assert (labels == LABELS[train]).all()
        assert (given == 1.5).all()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    """Before any training."""
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        make(classifier(Classifier)).fit(X, LABELS)


def test_nested_names_search_all_stages():
    """A search sets parameters of the outermost and of the innermost at once."""
    grid = {
        "bits": [3, 8],
        "estimator__sparsity": [0.5],
        "estimator__estimator__teacher__n_estimators": [2, 4],
        "estimator__estimator__estimator__module__hidden": [6],
    }
    search = GridSearchCV(WORK["Q(P(D))"](classifier(max_epochs=2)), grid, cv=2)
    search.fit(X, LABELS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_
    assert best.estimator_.estimator_.estimator_.module_.layers[0].out_features == 6
    assert len(search.cv_results_["params"]) == 4


@pytest.mark.parametrize("outer", [0.0, 0.7])
@pytest.mark.parametrize("inner", [0.0, 0.7])
def test_the_dense_net_can_teach_every_stage(outer, inner):
    """Each stage's `distill` has an effect, and the teacher is the dense net at the core."""

    def make(inner, outer):
        pruned = p(classifier()).set_params(distill=inner)
        return q(pruned).set_params(distill=outer).fit(X, Y)

    first, plain = make(inner, outer), make(0.0, 0.0)
    dense, same_dense = (q.estimator_.estimator_.module_.state_dict() for q in (first, plain))
    assert_same_state(dense, same_dense)
    same = all(torch.equal(a, b) for a, b in zip(
        weights_of(first).values(), weights_of(plain).values(), strict=True))  # fmt: skip
    assert same == (inner == outer == 0.0)


@pytest.mark.parametrize("name", ["D(P)", "D(Q)", "D(Q(P))"])
def test_the_teacher_reaches_every_phase_of_its_student(name):
    """The retraining inside differs from that of a student whose dense fit alone was taught."""
    taught = WORK[name](classifier()).fit(X, Y)
    inner = taught.estimator.set_params(estimator=FrozenEstimator(taught.estimator_.estimator_))
    untaught = inner.fit(X, Y)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(weights_of(taught).values(), weights_of(untaught).values(), strict=True)
    )
