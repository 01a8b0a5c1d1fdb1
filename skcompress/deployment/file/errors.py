"""What is wrong with a file, and how much one may ask for."""

# Elements of a tensor, or of an intermediate result of two rows, that a file may declare.
MAX_ELEMENTS = 1 << 28
# Cells that the adaptive coder takes, some seconds' work, and bytes of all the rest.
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
