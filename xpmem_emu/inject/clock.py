"""A partition's clock as faults make it: ahead, too fast, too slow, standing still.

Real time is whatever the harness has; the kernel gets what this makes of it. It never goes
back, and healing keeps it continuous: a clock that was ahead stays ahead. Only deadlines may
notice (design: no clock is trusted for safety).
"""


class Clock:
    """Times are nanoseconds. `steady` clocks are the real time and cost one attribute test."""

    __slots__ = ("_kernel_ns", "_rate", "_real_ns", "steady")

    def __init__(self) -> None:
        self.steady = True
        self._real_ns = 0
        self._kernel_ns = 0
        self._rate = 1.0

    def kernel_ns(self, real_ns: int) -> int:
        """The kernel's time at a real time."""
        if self.steady:
            return real_ns
        return self._kernel_ns + int((real_ns - self._real_ns) * self._rate)

    def real_ns(self, kernel_ns: int) -> int | None:
        """When the kernel's clock will show `kernel_ns`; None: not while it stands still."""
        if self.steady:
            return kernel_ns
        if self._rate == 0:
            return None
        ahead = kernel_ns - self._kernel_ns
        return self._real_ns + int(ahead / self._rate) + (self._rate != 1)

    def jump(self, real_ns: int, amount_ns: int) -> None:
        """From now on show `amount_ns` more."""
        self._rebase(real_ns)
        self._kernel_ns += amount_ns

    def run_at(self, real_ns: int, rate: float) -> None:
        """From now on run `rate` times as fast as real time; 0 stands still."""
        self._rebase(real_ns)
        self._rate = rate

    def _rebase(self, real_ns: int) -> None:
        self._kernel_ns = self.kernel_ns(real_ns)
        self._real_ns = real_ns
        self.steady = False
