import pytest
import torch

from skcompress.quantization.groups import from_rows, to_rows

SHAPES = [(3, 5), (4, 2, 3), (2, 3, 2, 2), (1, 7)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("granularity", ["tensor", "channel", 2, 3, 8])
def test_there_and_back(shape, granularity):
    """No weight is lost, moved or doubled."""
    tensor = torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)
    rows = to_rows(tensor, granularity)
    assert torch.equal(from_rows(rows, tensor.shape, granularity), tensor)
    assert sorted(rows[rows > 0].tolist()) == tensor.flatten().tolist()


def test_number_of_groups():
    """One, one for each output, and runs of each output's inputs."""
    tensor = torch.rand(4, 5, 2)
    sizes = [tuple(to_rows(tensor, g).shape) for g in ("tensor", "channel", 4)]
    assert sizes == [(1, 40), (4, 10), (12, 4)]


@pytest.mark.parametrize(("granularity", "n_groups"), [("tensor", 1), ("channel", 2), (2, 4)])
def test_spread(granularity, n_groups):
    """A value of each group goes to the weights of that group."""
    values = torch.arange(float(n_groups))[:, None]
    spread = from_rows(values, torch.Size((2, 3)), granularity)
    rows = to_rows(spread + 1, granularity)
    for row, value in zip(rows, values, strict=True):
        assert set(row[row > 0].tolist()) == {float(value) + 1}
