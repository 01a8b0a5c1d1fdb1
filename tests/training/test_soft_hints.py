"""The loss of hints, which compares how alike a layer finds the rows."""

import numpy as np
import pytest
import torch

from skcompress.training.soft import SoftTargets, similarity_loss
from tests.training.test_soft import RNG, TEACHER, X64, loss, net_of


def test_similarity_loss_by_hand():
    """Rows of the matrix of inner products are scaled to length one."""
    student, teacher = RNG.normal(size=(5, 2)), RNG.normal(size=(5, 3))
    unit = [a @ a.T / np.linalg.norm(a @ a.T, axis=1, keepdims=True) for a in (student, teacher)]
    value = similarity_loss(torch.tensor(student), torch.tensor(teacher), torch.ones(5).double())
    assert value.item() == pytest.approx(((unit[0] - unit[1]) ** 2).sum() / 25, rel=1e-12)


def test_weights_count_rows_in_the_similarity_loss():
    """A row of weight two is two rows."""
    student, teacher = (torch.tensor(RNG.normal(size=(5, w))) for w in (2, 3))
    counts = torch.tensor([1, 2, 3, 1, 2])
    repeated = [a.repeat_interleave(counts, dim=0) for a in (student, teacher)]
    expected = similarity_loss(*repeated, torch.ones(9).double())
    assert similarity_loss(student, teacher, counts.double()).item() == pytest.approx(
        expected.item(), rel=1e-12
    )


def test_similarity_of_dead_layers():
    """Where all activations are zero, loss and gradient are finite."""
    dead = torch.zeros(4, 3, requires_grad=True)
    similarity_loss(dead, torch.randn(4, 2), torch.ones(4)).backward()
    assert torch.isfinite(dead.grad).all()


def test_hints_are_added_to_the_loss():
    """The output of the student's layer is compared with the activations of the rows."""
    net, hint = net_of(), RNG.normal(size=(12, 5))
    with torch.no_grad():
        hidden = net.module_.layers[0](torch.tensor(X64))
    extra = similarity_loss(hidden, torch.tensor(hint), torch.ones(12).double()).item()
    plain = SoftTargets(TEACHER, 0.5)
    hinted = SoftTargets(TEACHER, 0.5, hints={"layers.0": hint}, hint_weight=3.0)
    assert loss(net, hinted) == pytest.approx(loss(net, plain) + 3 * extra, rel=1e-12)
    np.testing.assert_array_equal(hinted.take(np.array([2])).hints["layers.0"], hint[[2]])
