"""Learning rates of the dense fit: how they are recorded, and replayed."""

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, StepLR

from skcompress import PrunedNet
from skcompress.pruning.recovery import has_schedule, learning_rate, recorded_rates
from skcompress.training.nets import dense_net
from tests.pruning.test_recovery import RATES, fit, recording
from tests.pruning_modules import classification

SCHEDULERS = {
    "by epoch": LRScheduler(StepLR, step_size=1, gamma=0.5),
    "by batch": LRScheduler(CosineAnnealingLR, T_max=12, step_every="batch"),
    "warm-up": LRScheduler(LambdaLR, lr_lambda=lambda epoch: (epoch + 1) / 4),
}


class TestRewind:
    """The learning rates of the dense fit, once more."""

    @pytest.mark.parametrize("name", SCHEDULERS)
    @pytest.mark.parametrize("epochs", [1, 2, 4])
    @pytest.mark.parametrize("schedule", ["one-shot", "gradual"])
    def test_the_last_epochs_are_replayed(self, name, epochs, schedule):
        net = recording(callbacks=[("rates", SCHEDULERS[name])])
        fit(net, recovery="rewind", retrain_epochs=epochs, schedule=schedule)
        dense, again = RATES[: 4 * 3], RATES[4 * 3 :]
        assert len({rate for (rate,) in dense}) > 1
        assert len(again) == epochs * 3
        np.testing.assert_allclose(again, dense[-epochs * 3 :], rtol=1e-12)

    def test_more_epochs_than_there_were(self):
        """Then the whole course is stretched."""
        net = recording(callbacks=[("rates", SCHEDULERS["by epoch"])])
        fit(net, recovery="rewind", retrain_epochs=8)
        again = [rate for (rate,) in RATES[4 * 3 :]]
        assert again == pytest.approx(np.repeat([0.1, 0.05, 0.025, 0.0125], 6).tolist())

    def test_groups_of_parameters(self):
        """Each group replays its own rates, though skorch notes those of the first one only."""
        net = recording(
            callbacks=[("rates", SCHEDULERS["by epoch"])],
            optimizer__param_groups=[("first.*", {"lr": 0.02})],
        )
        fit(net, recovery="rewind", retrain_epochs=4)
        assert np.shape(RATES) == (24, 2)
        np.testing.assert_allclose(RATES[12:], RATES[:12], rtol=1e-12)

    @pytest.mark.parametrize("nested", [False, True])
    def test_frozen(self, nested):
        """A frozen net's own history is replayed, also that of one inside a PrunedNet."""
        X, y = classification()
        net = recording(callbacks=[("rates", SCHEDULERS["by epoch"])])
        frozen = PrunedNet(net, recovery="none", schedule="one-shot") if nested else net
        frozen.fit(X, y)
        dense = RATES[:12]
        fit(FrozenEstimator(frozen), recovery="rewind", retrain_epochs=4)
        np.testing.assert_allclose(RATES[12:], dense, rtol=1e-12)

    def test_inside_another_pruned_net(self):
        """The schedule is that of the net at the core."""
        net = recording(callbacks=[("rates", SCHEDULERS["by epoch"])])
        inner = PrunedNet(net, recovery="none", schedule="one-shot")
        fit(inner, recovery="rewind", retrain_epochs=2)
        np.testing.assert_allclose(RATES[12:], RATES[6:12], rtol=1e-12)

    def test_a_scheduler_that_does_nothing(self):
        """A rate that turns out constant is an error, too."""
        constant = LRScheduler(LambdaLR, lr_lambda=lambda epoch: 1.0)
        with pytest.raises(ValueError, match="the net has a constant rate"):
            fit(recording(callbacks=[("rates", constant)]), recovery="rewind")

    def test_rounding_does_not_fall_back(self):
        """A hundred epochs: step 29 of 100 belongs to epoch 29, though 0.29 * 100 < 29."""
        assert int(29 / 100 * 100) == 28
        X, y = classification()
        net = recording(max_epochs=100, callbacks=[("rates", SCHEDULERS["warm-up"])]).fit(X, y)
        rate = learning_rate("rewind", None, net, 100)
        found = [rate(step / 100) for step in range(100)]
        assert found == pytest.approx([(epoch + 1) / 4 for epoch in range(100)])


class TestHistory:
    """What is known of the dense fit's rates."""

    def test_recorded_rates(self):
        X, y = classification()
        by_epoch = recording(callbacks=[("rates", SCHEDULERS["by epoch"])]).fit(X, y)
        assert recorded_rates(by_epoch) == [[0.1], [0.05], [0.025], [0.0125]]
        by_batch = recording(callbacks=[("rates", SCHEDULERS["by batch"])]).fit(X, y)
        expected = [rate for (rate,) in RATES]
        assert np.concatenate(recorded_rates(by_batch)).tolist() == pytest.approx(expected)
        assert recorded_rates(recording().fit(X, y)) == []
        assert recorded_rates(recording()) == []

    @pytest.mark.parametrize(
        ("callbacks", "expected"),
        [
            ([], False),
            ([("rates", SCHEDULERS["by epoch"])], True),
            ([LRScheduler], True),
            ([SCHEDULERS["by batch"]], True),
        ],
        ids=["none", "named", "class", "instance"],
    )
    def test_before_the_dense_fit(self, callbacks, expected):
        net = recording(callbacks=callbacks)
        assert has_schedule(net, net) == expected

    def test_after_it(self):
        """A frozen net has a schedule if its rates have changed."""
        X, y = classification()
        for name, expected in (("by epoch", True), (None, False)):
            callbacks = [("rates", SCHEDULERS[name])] if name else []
            net = recording(callbacks=callbacks).fit(X, y)
            assert has_schedule(FrozenEstimator(net), net) == expected

    def test_the_net_at_the_core(self):
        X, y = classification()
        inner = PrunedNet(recording(), recovery="none", schedule="one-shot").fit(X, y)
        outer = PrunedNet(FrozenEstimator(inner), recovery="none", schedule="one-shot").fit(X, y)
        assert dense_net(outer) is inner.estimator_
