"""What must always hold: every invariant, once. Whoever names one (S3, L1, D1) means an entry here.

S: nothing bad happens (safety). L: what is due happens in time (liveness). D: runs can be repeated.
Numbers are never given to something else. An invariant does not say who judges it: a judge says
which ones it judges (`judge.checkers.judges`), and a test sees that each has one. The list in
docs/simulation.md is written from both.
"""

from enum import Enum, StrEnum

from msgspec import Struct


class When(Enum):
    """When the event streams of partitions suffice to judge an invariant, with nothing else."""

    ALWAYS = "always"
    AT_REST = "at rest"
    """Only when they end healed, with every call answered and nobody at work."""
    NEVER = "never"


class Evidence(Struct, frozen=True):
    """What event streams alone show of an invariant. `what` they show, or NEVER: what it needs."""

    when: When
    what: str


def _shown(what: str) -> Evidence:
    return Evidence(When.ALWAYS, what)


def _at_rest(what: str) -> Evidence:
    return Evidence(When.AT_REST, what)


def _needs(what: str) -> Evidence:
    return Evidence(When.NEVER, f"needs {what}")


class Invariant(StrEnum):
    """Its number, as a string; `label` is what people call it, `meaning` all of it."""

    label: str
    meaning: str
    streams: Evidence

    def __new__(cls, number: str, label: str, meaning: str, streams: Evidence) -> "Invariant":
        """Only the number is the value: it is what is printed, compared and encoded."""
        self = str.__new__(cls, number)
        self._value_ = number
        self.label, self.meaning, self.streams = label, meaning, streams
        return self

    S1 = (
        "S1",
        "no stale mapping",
        "Once a recall is complete, no entry anywhere leads to the recalled frame for that page.",
        _needs("page tables"),
    )
    S2 = (
        "S2",
        "no early free",
        "A frame is free only after every holder has acknowledged, was fenced, or is gone.",
        _shown("no frame is freed while an importer maps it"),
    )
    S3 = (
        "S3",
        "pins balance",
        "What is pinned is what PFN tables have, for somebody's permit, and none when all is over.",
        _shown("no segment is unpinned more than pinned; at the end none is pinned for nobody"),
    )
    S4 = (
        "S4",
        "right frame",
        "An importer's entry leads to the frame that the page has at home when it is installed.",
        _shown("what is installed was served, and not recalled since"),
    )
    S5 = (
        "S5",
        "rights never widen",
        "An importer may store only where the exporter itself may at that moment.",
        _needs("page tables"),
    )
    S6 = (
        "S6",
        "ids are fresh",
        "No id is given twice, none of an earlier boot resolves, no frame of an earlier session is "
        "accepted.",
        _shown("no id is given twice, no message of an earlier session is accepted"),
    )
    S7 = (
        "S7",
        "fenced means fenced",
        "Nothing that a partition does after it was given up, however late it wakes, changes a "
        "live page; its frames leave quarantine on proof only.",
        _shown("no frame is freed that a lost importer mapped, before the proof that it is gone"),
    )
    S8 = (
        "S8",
        "memory is linearizable",
        "Loads, stores and atomic operations on an aligned word take effect one after the other, "
        "each at one moment while it lasts, from whichever partition.",
        _needs("what the tasks saw"),
    )
    S9 = (
        "S9",
        "at most once",
        "A request that arrives again has no second effect.",
        _shown("no request is carried out twice"),
    )
    S10 = (
        "S10",
        "teardown complete",
        "When tasks and partitions have ended, in whatever order, nothing is left of them.",
        _needs("an audit of each partition"),
    )
    S11 = (
        "S11",
        "containment",
        "No kernel panics because of what another one does, sends, or stopped doing.",
        _shown("no partition panics"),
    )
    S12 = (
        "S12",
        "nobody is given up without a cause",
        "A session ends only if something was done to one side or between them: slow is not dead.",
        _needs("what was done to processes and messages"),
    )
    S13 = (
        "S13",
        "rights",
        "Nobody gets a permit, attachment or access that may not be had, everybody gets those that "
        "must be, and a refusal has the errno that is due.",
        _needs("calls and answers"),
    )
    S14 = (
        "S14",
        "contents",
        "Every byte of every page and file is what was last stored there, whoever loads it.",
        _needs("calls and bytes"),
    )
    S15 = (
        "S15",
        "grants and permits agree",
        "An exporter knows the permits that there are on its segments, and no others.",
        _needs("the tables of each partition"),
    )
    S16 = (
        "S16",
        "no table outgrows its bound",
        "Whatever peers send and callers ask, a kernel keeps no more of it than the image allows.",
        _needs("the tables of each partition"),
    )
    S17 = (
        "S17",
        "tasks begin and end as was told",
        "Who was killed has no child and no new program, a child lives only if its fork was "
        "answered with it, and no call outlives the exec or the end of its task.",
        _shown("no task is born of one that was killed"),
    )
    S18 = (
        "S18",
        "a kernel agrees with itself",
        "Every index and every count says what the things say that it stands for.",
        _needs("the tables of each partition"),
    )
    S19 = (
        "S19",
        "nobody gets the pages of who forks",
        "From the return of fork_begin to fork_end no importer stores by an entry that it had, and "
        "nothing of the task's segments is served.",
        _needs("calls and answers"),
    )
    S20 = (
        "S20",
        "what is under way keeps out what must not meet it",
        "No fault asks for pages that are being given back, no page is known while it is recalled "
        "or pinned for two at once, and a segment with any of that is not forgotten.",
        _needs("the tables of each partition"),
    )
    S21 = (
        "S21",
        "no cached alias",
        "Every entry and translation that leads to a page of mspec is uncached.",
        _needs("page tables"),
    )
    L1 = (
        "L1",
        "every fault ends",
        "A fault ends within the bound that the image sets.",
        _shown("every fault ends within its bound"),
    )
    L2 = (
        "L2",
        "every recall ends",
        "A recall ends within the bound that the image sets.",
        _shown("every recall ends within its bound"),
    )
    L3 = (
        "L3",
        "no hang",
        "Every call is answered, also when its kernel stops.",
        _at_rest("at the end every call has been answered"),
    )
    L4 = (
        "L4",
        "recovery",
        "When all is healed every partition becomes ACTIVE with every other, and what is asked "
        "then succeeds.",
        _at_rest("at the end every partition is active with every other"),
    )
    L5 = (
        "L5",
        "recalls go first, and no fault starves",
        "A request waits for a slot of its own class only: the INVALIDATE of a recall leaves at "
        "once, a FAULT as soon as a slot for it is free.",
        _shown("no recall waits for what others want, no fault beside a free slot"),
    )
    L6 = (
        "L6",
        "who heals finds a place",
        "A call that heals, ends or kills is not refused because others took every thread.",
        _needs("calls and answers"),
    )
    L7 = (
        "L7",
        "nobody waits for what is there already",
        "Whoever sleeps has something to wait for, is told when it ends, was not killed, and is "
        "not past its time.",
        _needs("the queues of each partition"),
    )
    L8 = (
        "L8",
        "nobody gives up too soon",
        "A fault fails because its page keeps changing after so many changes as the image says, "
        "not after fewer.",
        _needs("to know which of two partitions was first"),
    )
    L9 = (
        "L9",
        "a transfer is repeated once",
        "A block transfer asks again for what it reads as often as the image says, in all.",
        _needs("the image of each partition"),
    )
    D1 = (
        "D1",
        "determinism",
        "The same seed gives the same event stream, byte for byte, in any process.",
        _needs("the run again"),
    )


class Judge(Struct, frozen=True):
    """Who judges: its module, which invariants it may report, and what it looks at for that."""

    name: str
    invariants: tuple[Invariant, ...]
    looks_at: str
