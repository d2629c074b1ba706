"""A small stream of random numbers for failpoints: splitmix64, 64 bits of state.

The kernel draws no randomness of its own (its steps must be the same every time), so whoever sets
a failpoint gives the seed, and the point keeps this stream to itself. Two points, or the same
point set twice, never share draws. Not for anything that must be unpredictable.
"""

_MASK = (1 << 64) - 1


class Stream:
    """Draws that depend on the seed alone."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def below(self, limit: int) -> int:
        """A number in [0, limit)."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
        return (mixed ^ mixed >> 31) * limit >> 64
