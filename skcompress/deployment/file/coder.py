"""An adaptive binary arithmetic coder that computes in integers alone.

Each decision is predicted by several contexts, each with a probability of its own that follows
what was seen there. Their log odds are mixed by logistic regression, learned as the coding goes
on, and the mixture drives an arithmetic coder. Nothing is rounded by a processor's own rules, so
that the same input gives the same bytes, and the same bytes the same output, on every machine.

Source: M. Mahoney, "Adaptive weighing of context models for lossless data compression", 2005.
"""

from operator import mul

from .errors import MAX_CODED

# Probabilities have 16 bits, log odds 8 bits after the point, weights of the mixture 16.
ONE = 1 << 16
# e ** (1 / 256), with 64 bits after the point.
_STEP = 18518942588666869714
# A count of 255 makes a probability slow enough for every tensor.
_LIMIT = 255
_START = (ONE // 2) << 8
_FIRST_WEIGHTS = 60_000
_LEARNING_RATE = 8
_WIDTH = 48
_TOP, _MASK = 1 << (_WIDTH - 8), (1 << _WIDTH) - 1


def _logistic() -> list[int]:
    """Tabulate ``1 / (1 + exp(-x / 256))``; an entry for a negative x stands at the end."""
    rising, power = [], 1 << 64
    for _ in range(2048):
        rising.append(min((power << 16) // (power + (1 << 64)), ONE - 32))
        power = power * _STEP >> 64
    return rising + [ONE - p for p in rising[:0:-1]]


def _log_odds(logistic: list[int]) -> list[int]:
    """Invert the logistic function for probabilities of 12 bits."""
    table, x = [], -2047
    for p in range(8, ONE, 16):
        while x < 2047 and logistic[x] < p:
            x += 1
        table.append(x)
    return table


SQUASH = _logistic()
STRETCH = _log_odds(SQUASH)
RATES = [2 * ONE // (2 * n + 3) for n in range(_LIMIT + 1)]


class Coder:
    """Code decisions one by one: into bytes, or out of them if some are given.

    The same calls in the same order undo each other. What a call is given to encode is returned,
    and when decoding it is ignored, so that one function describes both directions.

    Parameters
    ----------
    data : bytes, default=None
        What to decode; None encodes.

    Examples
    --------
    >>> from skcompress.deployment.file.coder import Coder
    >>> encoder = Coder()
    >>> [encoder.byte(value, [0]) for value in b"aaaaaaaa"][-1], len(encoder.finish())
    (97, 2)
    >>> decoder = Coder(encoder.finish())
    >>> bytes(decoder.byte(0, [0]) for _ in range(8))
    b'aaaaaaaa'
    """

    def __init__(self, data: bytes | None = None) -> None:
        self.decoding = data is not None
        self.states: dict[int, int] = {}
        self.weights: dict[int, list[int]] = {}
        # How many more decisions there may be, whatever they are about.
        self.left = MAX_CODED
        self.low, self.high = 0, _MASK
        self.output = bytearray()
        self.input = data or b""
        self.position = _WIDTH // 8
        self.code = int.from_bytes(self.input[: self.position].ljust(self.position, b"\0"), "big")

    def bit(self, bit: int, contexts: list[int], mixture: int, rate: int = _LEARNING_RATE) -> int:
        """Code a decision of 0 or 1.

        Parameters
        ----------
        bit : int
        contexts : list of int
            Keys of probabilities, any integers, as many as the mixture always has.
        mixture : int
            Key of the weights by which the contexts are mixed.
        rate : int, default=8
            How fast the weights follow.
        """
        self.left -= 1
        if self.left < 0:
            raise ValueError("its coded data takes too many decisions")
        states, get = self.states, self.states.get
        known = [get(key, _START) for key in contexts]
        odds = [STRETCH[state >> 12] for state in known]
        weights = self.weights.get(mixture) or [_FIRST_WEIGHTS // len(contexts)] * len(contexts)
        mixed = sum(map(mul, weights, odds)) >> 16
        p = SQUASH[mixed if -2048 < mixed < 2048 else (2047 if mixed > 0 else -2047)]
        bit = self._narrow(bit, p)
        goal = ONE - 1 if bit else 0
        error = (goal + bit - p) * rate
        self.weights[mixture] = [w + (x * error >> 18) for w, x in zip(weights, odds)]  # noqa: B905
        for key, state in zip(contexts, known):  # noqa: B905 - a test of lengths takes its time
            count, old = state & 255, state >> 8
            new = old + ((goal - old) * RATES[count] >> 16)
            states[key] = new << 8 | (count + 1 if count < _LIMIT else _LIMIT)
        return bit

    def _narrow(self, bit: int, p: int) -> int:
        """Divide the interval in proportion to the probability of 1, and keep the bit's part."""
        split = self.low + (self.high - self.low >> 16) * p
        if self.decoding:
            bit = int(self.code <= split)
        if bit:
            self.high = split
        else:
            self.low = split + 1
        while (self.low ^ self.high) < _TOP:
            self._shift()
        return bit

    def _shift(self) -> None:
        """Move a byte that is settled out, and the next one in."""
        if self.decoding:
            following = self.input[self.position] if self.position < len(self.input) else 0
            self.code = (self.code << 8 & _MASK) | following
            self.position += 1
            if self.position > len(self.input) + _WIDTH // 8:
                raise ValueError("the coded data ends too early")
        else:
            self.output.append(self.low >> _WIDTH - 8)
        self.low = self.low << 8 & _MASK
        self.high = (self.high << 8 & _MASK) | 255

    def byte(self, value: int, contexts: list[int], mixture: int = 0) -> int:
        """Code an integer from 0 to 255, the highest bit first, in contexts of its own."""
        node = 1
        for place in range(7, -1, -1):
            # Below zero, where no context of a single decision is.
            keys = [-1 - (context << 8 | node) for context in contexts]
            node = node << 1 | self.bit(value >> place & 1, keys, mixture)
        return node & 255

    def finish(self) -> bytes:
        """Return all that was encoded, in the fewest bytes; a decoder reads zeros after them."""
        for size in range(_WIDTH // 8 + 1):
            shift = _WIDTH - 8 * size
            last = self.high >> shift << shift
            if last >= self.low:
                break
        return bytes(self.output + (last >> shift).to_bytes(size, "big"))
