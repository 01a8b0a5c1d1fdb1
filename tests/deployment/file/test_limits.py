"""Operations that a file may not have, or not on such shapes: what ATen does not check itself.

Each of them crashed or hung a process, or took gigabytes, in a file of some hundred bytes. They are
run on shapes alone here, on which none of that happens.
"""

import pytest
import torch

from skcompress.deployment.file.errors import FileError
from skcompress.deployment.file.interpreter import Interpreter

ROWS = torch.zeros(2, 3, 8, 8)


def shapes(operations, *inputs, tensors=()):
    """Run operations on shapes alone."""
    program = Interpreter(operations, len(inputs), len(tensors))
    return program.check([x.to("meta") for x in inputs], [t.to("meta") for t in tensors])[0].shape


@pytest.mark.parametrize(
    "operation",
    [
        ["to.dtype", ["x0", 99]],
        ["sum", ["x0"], {"dtype": 99}],
        ["softmax.int", ["x0", 1, -2]],
        ["softmax.int", ["x0", 1, {"n": [1, 0]}]],
        ["zeros", [[2, 3]], {"dtype": 5}],
        ["to.dtype", ["x0", ":float32", False, False, 99]],
        ["upsample_bicubic2d", ["x0", [9, 9], False, 1e-300, 1e-300]],
        ["upsample_nearest2d.vec", ["x0", None, [1e300, 2.0]]],
        ["upsample_nearest2d.vec", ["x0", None, [2.0, "x0"]]],
    ],
    ids=lambda operation: f"{operation[0]}-{len(str(operation))}",
)
def test_arguments_of_other_types(operation):
    """Types of numbers are torch's, places are none, and scales are numbers that make sense."""
    with pytest.raises(FileError, match="operation 0 has arguments of other types"):
        Interpreter([operation], 1, 0)


@pytest.mark.parametrize("name", ["repeat_interleave.self_Tensor", "repeat_interleave.Tensor"])
def test_repeats_that_are_tensors(name):
    """They may be negative, which is found out after something was written."""
    with pytest.raises(FileError, match="operation 0 is not allowed"):
        Interpreter([[name, ["x0", "p0", 1]]], 1, 1)


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (["max_pool2d", ["x0", [1, 1 << 32], [], [0], [1], True]], "has a window of"),
        (
            ["avg_pool2d", ["x0", [11, 2], [], [1], True]],
            r"a window of \[11, 2\] on \(8, 8\) elements",
        ),
        (["max_pool2d_with_indices", ["x0", [9], [], [0], [1], True]], "has a window of"),
    ],
)
def test_windows_that_are_larger_than_what_they_are_on(operation, reason):
    """As many steps as the window has would be made, wherever it ends."""
    with pytest.raises(FileError, match=reason):
        shapes([operation], ROWS)


def test_interpolation_of_integers():
    """Its tables of windows are not checked."""
    bytes_ = [["to.dtype", ["x0", ":uint8"]], ["upsample_bicubic2d", [".", [9, 9], False]]]
    with pytest.raises(FileError, match="upsample_bicubic2d interpolates integers"):
        shapes(bytes_, ROWS)


def test_convolutions_in_double_precision_are_unfolded():
    """All the windows lie side by side: a kernel of 33 x 33 takes a thousand times its input."""
    weight = torch.zeros(1, 64, 33, 33)
    program = [["conv2d", ["x0", "p0", None, [1, 1], [16, 16]]]]
    rows = torch.zeros(1, 64, 128, 128)
    assert shapes(program, rows, tensors=[weight]) == (1, 1, 128, 128)
    with pytest.raises(FileError, match="a convolution takes so many bytes at once: 9135194112"):
        shapes(program, rows.double(), tensors=[weight.double()])


def test_transposed_convolutions_are_unfolded_the_other_way():
    """There is a window of each output channel for each place of the input."""
    weight, rows = torch.zeros(1, 64, 65, 65), torch.zeros(1, 1, 64, 64)
    program = [["conv_transpose2d.input", ["x0", "p0"]]]
    assert shapes(program, rows, tensors=[weight]) == (1, 64, 128, 128)
    with pytest.raises(FileError, match="a convolution takes so many bytes at once: 8860467200"):
        shapes(program, rows.double(), tensors=[weight.double()])


@pytest.mark.parametrize("scale", [-2.0, 5000.0, None])
def test_scales_of_attention_are_free(scale):
    """They are factors, and no sizes."""
    name, rows = "scaled_dot_product_attention", torch.zeros(2, 3, 8, 8)
    operation = [name, ["x0", "x0", "x0"], {"scale": scale}]
    assert shapes([operation], rows) == (2, 3, 8, 8)


def test_what_nets_do_is_allowed():
    """Windows up to the padded input, scales, types by their names."""
    for program, shape in [
        ([["max_pool2d", ["x0", [8, 8]]]], (2, 3, 1, 1)),
        ([["avg_pool2d", ["x0", [10], [], [1]]]], (2, 3, 1, 1)),
        ([["upsample_nearest2d.vec", ["x0", None, [2.0, 0.5]]]], (2, 3, 16, 4)),
        ([["to.dtype", ["x0", ":float64"]]], (2, 3, 8, 8)),
        ([["repeat_interleave.self_int", ["x0", 2, 1]]], (2, 6, 8, 8)),
    ]:
        assert shapes(program, ROWS) == shape
