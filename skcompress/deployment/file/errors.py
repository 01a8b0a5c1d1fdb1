"""What is wrong with a file, and how much one may ask for.

These limits hold whatever a file says; ``max_bytes`` of :func:`skcompress.load` limits the memory
that its tensors take beside them.
"""

# Elements of a tensor, or of an intermediate result.
MAX_ELEMENTS = 1 << 28
# Operations, tensors that they make on their way, the bytes of all results that are needed at the
# same time, and multiplications (or as much other work), of a batch of rows: some seconds. A batch
# that takes more bytes or work is divided.
MAX_OPERATIONS = 1 << 16
MAX_MADE = 1 << 20
MAX_RESULTS = 1 << 30
MAX_WORK = 1 << 38
# Each dimension of a tensor without elements, which are otherwise bounded by their product.
MAX_EMPTY = 1 << 16

# The adaptive coder runs in Python, some 5 microseconds a decision. Of a whole file, it codes so
# many decisions on masks and integers, bytes of other numbers, at eight decisions each, and bytes
# of the description; the rest goes to LZMA. Both directions count alike.
MAX_DECISIONS = 1 << 19
MAX_ADAPTIVE_BYTES = 1 << 13
MAX_ADAPTIVE_TEXT = 1 << 13
# All of these together, and up to three decisions for each tensor.
MAX_TENSORS = 1 << 16
MAX_CODED = 1 << 20
# Cells of a matrix that goes through it.
MAX_CELLS = 1 << 20


class FileError(ValueError):
    """A file that cannot be read: it is damaged, of a newer version, or made to do harm."""


def check(condition: bool, reason: str) -> None:
    """Refuse a file unless a condition holds.

    Raises
    ------
    FileError
        With the reason.
    """
    if not condition:
        raise FileError(f"This is not a file that skcompress can read: {reason}.")
