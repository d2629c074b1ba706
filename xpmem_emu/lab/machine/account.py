"""What a run of the costed machine answers: who waited how long, for what, with what off."""

from dataclasses import dataclass, field

from xpmem_emu.lab.machine.strand import Doing


@dataclass(frozen=True, slots=True, order=True)
class WaitKind:
    """Waits of one sort. `how`: spinning, sleeping, ready (for a processor) or pending (an
    interrupt); `off`: what was switched off meanwhile, where it waited."""

    who: str
    what: str
    how: str
    off: str


@dataclass(slots=True)
class WaitSum:
    """How often, and how long in nanoseconds."""

    count: int = 0
    total_ns: int = 0
    longest_ns: int = 0

    def add(self, ns: int) -> None:
        """One more wait."""
        self.count += 1
        self.total_ns += ns
        self.longest_ns = max(self.longest_ns, ns)


@dataclass(frozen=True, slots=True)
class KernelComplaint:
    """Something that a kernel would print with a backtrace."""

    text: str
    who: str
    place: str

    def __str__(self) -> str:
        return f"{self.text}: {self.who} in {self.place}"


@dataclass
class Account:
    """The sums of a run."""

    processors: int
    elapsed_ns: int = 0
    spent_ns: dict[Doing, int] = field(default_factory=lambda: dict.fromkeys(Doing, 0))
    waits: dict[WaitKind, WaitSum] = field(default_factory=dict)
    complaints: dict[KernelComplaint, int] = field(default_factory=dict)
    """And how often each."""

    @property
    def gone_ns(self) -> int:
        """Time of processors that worked or spun."""
        return self.spent_ns[Doing.BUSY] + self.spent_ns[Doing.SPIN]

    def waited(self, who: str, what: str, how: str, off: str, ns: int) -> None:
        """Count one wait."""
        self.waits.setdefault(WaitKind(who, what, how, off), WaitSum()).add(ns)

    def complain(self, text: str, who: str, place: str) -> None:
        """Count one complaint."""
        made = KernelComplaint(text, who, place)
        self.complaints[made] = self.complaints.get(made, 0) + 1

    def sum_of(self, *, who: str = "", what: str = "", how: str = "") -> WaitSum:
        """All waits whose task and object begin so, and of that way."""
        total = WaitSum()
        for kind, each in self.waits.items():
            named = kind.who.startswith(who) and kind.what.startswith(what)
            if named and how in ("", kind.how):
                total.count += each.count
                total.total_ns += each.total_ns
                total.longest_ns = max(total.longest_ns, each.longest_ns)
        return total
