"""Names of test cases that are the same in every process."""

import re


def steady(value):
    """Write a value without the address of any object in it."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
