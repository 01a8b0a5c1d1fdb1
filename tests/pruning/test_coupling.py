import pytest
import torch

from skcompress.pruning.coupling import (
    NONE,
    Coupling,
    Labelled,
    along,
    nothing,
    spread,
    varies,
)


def slots(*sizes):
    """Return a coupling, and the labels of vectors of given sizes."""
    coupling = Coupling()
    vectors = [Labelled(torch.zeros(n), nothing((n,)), str(i)) for i, n in enumerate(sizes)]
    return coupling, [coupling.slot(vector, 0) for vector in vectors]


class TestSlot:
    """Labels of positions in parameters."""

    def test_each_position_has_its_own(self):
        _, (first, second) = slots(3, 2)
        assert torch.cat([first, second]).tolist() == [0, 1, 2, 3, 4]

    def test_the_same_position_has_the_same(self):
        coupling = Coupling()
        matrix = Labelled(torch.zeros(2, 3), nothing((2, 3)), "w")
        rows, columns = coupling.slot(matrix, 0), coupling.slot(matrix, 1, consumer=True)
        assert (len(rows), len(columns)) == (2, 3)
        assert coupling.slot(matrix, 1) is columns
        assert coupling.consumers == {("w", 1)}
        assert set(coupling.slots) == {("w", 0), ("w", 1)}


class TestCouple:
    """Classes of labels."""

    def test_chains(self):
        """Whatever the order, coupled labels have one root."""
        coupling, (a, b, c) = slots(2, 2, 2)
        coupling.couple(c, b, "")
        coupling.couple(b, a, "")
        roots = coupling.roots(torch.cat([a, b, c])).tolist()
        assert roots == [0, 1] * 3

    def test_one_with_many(self):
        coupling, (a, b) = slots(1, 4)
        coupling.couple(b, a.expand(4), "")
        assert coupling.roots(b).tolist() == [0] * 4

    def test_none_pins(self):
        """What is joined with no unit cannot leave, and the reason is kept."""
        coupling, (a, _) = slots(2, 1)
        coupling.couple(a, torch.tensor([NONE, NONE]), "because")
        assert {coupling.pinned[root] for root in coupling.roots(a).tolist()} == {"because"}

    @pytest.mark.parametrize("first_pinned", [True, False])
    def test_pins_survive(self, first_pinned):
        """A class is pinned if any part of it was, whichever gives the root."""
        coupling, (a, b) = slots(1, 1)
        coupling.pin(a if first_pinned else b, "because")
        coupling.couple(a, b, "")
        assert coupling.pinned == {0: "because"}
        assert coupling.roots(b).tolist() == [0]

    def test_the_first_reason_stays(self):
        coupling, (a,) = slots(1)
        coupling.pin(a, "first")
        coupling.pin(a, "second")
        assert coupling.pinned == {0: "first"}

    def test_pinning_nothing(self):
        coupling, _ = slots(1)
        coupling.pin(nothing((2, 2)), "because")
        assert coupling.pinned == {}
        assert coupling.roots(nothing((2,))).tolist() == [NONE, NONE]


class TestShapes:
    """Labels of whole tensors."""

    def test_varies(self):
        labels = spread(torch.tensor([4, 5]), 1, (3, 2, 2))
        assert [varies(labels, dim) for dim in (0, 1, 2, -1, -2)] == [
            False, True, False, False, True,
        ]  # fmt: skip

    @pytest.mark.parametrize("dim", [0, 1, 2, -1])
    def test_along_undoes_spread(self, dim):
        coupling, shape = Coupling(), [3, 3, 3]
        labels = torch.tensor([7, 5, 6])
        assert torch.equal(along(coupling, spread(labels, dim, shape), dim, ""), labels)
        assert coupling.pinned == {}

    def test_along_pins_what_is_mixed(self):
        """Labels that change along another dimension stand for no single unit."""
        coupling, (a, b) = slots(2, 2)
        found = along(coupling, torch.stack([a, b]), 1, "mixed")
        assert found.tolist() == [NONE, NONE]
        assert set(coupling.pinned) == {0, 1, 2, 3}
