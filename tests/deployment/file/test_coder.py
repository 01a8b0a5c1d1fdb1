import hashlib

import pytest

from skcompress.deployment.file.coder import ONE, SQUASH, STRETCH, Coder
from skcompress.deployment.file.text import code_data, code_length, code_text, primed_coder

GOLDEN = (784, "3b32acc42a519dec")


def integers(count, below, seed=1):
    """Return pseudo-random integers that are the same on every machine."""
    values = []
    for _ in range(count):
        seed = seed * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        values.append((seed >> 33) % below)
    return values


def code_bits(coder, bits):
    """Code bits in two contexts each."""
    return [coder.bit(bit, [1, 2 + i % 3], i % 2) for i, bit in enumerate(bits)]


def test_tables_are_each_others_inverse():
    """Log odds of a probability give it back, to the precision of the tables."""
    assert all(abs(SQUASH[x] + SQUASH[-x] - ONE) <= 1 for x in range(1, 2048))
    assert all(abs(SQUASH[STRETCH[p >> 4]] - p) <= 140 for p in range(64, ONE - 64, 16))


@pytest.mark.parametrize("share", [2, 10, 1000])
def test_bits_come_back_in_about_their_entropy(share):
    """Of any skew; the estimate starts at one half and has to learn."""
    bits = [int(v == 0) for v in integers(4000, share)]
    encoder = Coder()
    code_bits(encoder, bits)
    data = encoder.finish()
    assert code_bits(Coder(data), [0] * len(bits)) == bits
    entropy = {2: 500, 10: 235, 1000: 6}[share]
    assert len(data) < 1.1 * entropy + 12


def test_bytes_are_the_same_on_every_machine():
    """A digest that was computed once."""
    encoder = Coder()
    code_bits(encoder, [int(v < 3) for v in integers(5000, 10)])
    for value in integers(500, 256, seed=2):
        encoder.byte(value & value >> 3, [7, 8 + (value >> 7)], 9)
    data = encoder.finish()
    digest = hashlib.sha256(data).hexdigest()[:16]
    assert (len(data), digest) == GOLDEN


def test_the_shortest_end_is_enough():
    """Whatever was coded last, the zeros that a decoder reads after the end are right."""
    for n_bits in range(40):
        bits = integers(n_bits, 2, seed=n_bits)
        encoder = Coder()
        code_bits(encoder, bits)
        assert code_bits(Coder(encoder.finish()), [0] * n_bits) == bits


def test_data_that_ends_too_early_is_noticed():
    """A decoder reads no further than an encoder could have written."""
    decoder = Coder(b"")
    with pytest.raises(ValueError, match="ends too early"):
        # In a context that is new, nothing is known, and a byte takes a byte.
        [decoder.byte(0, [i]) for i in range(100)]


@pytest.mark.parametrize(
    "text", [b"", b"a", b'{"operations":[["linear",["x0","p0"]]]}', b"\xff" * 99]
)
def test_text_and_data_come_back(text):
    """Also none, and bytes that no text has."""
    encoder = primed_coder()
    code_length(encoder, len(text))
    code_text(encoder, text)
    code_data(encoder, text, 4, len(text))
    decoder = primed_coder(encoder.finish())
    assert code_length(decoder, 0) == len(text)
    assert code_text(decoder, b"", len(text)) == text
    assert code_data(decoder, b"", 4, len(text)) == text


@pytest.mark.parametrize("length", [0, 127, 128, 2**14, 2**28 - 1])
def test_lengths_come_back(length):
    """From none to the largest."""
    encoder = Coder()
    code_length(encoder, length)
    assert code_length(Coder(encoder.finish()), 0) == length
