"""What a story stands on: some partitions that can be called, looked at, and broken.

A `Backend` is one way to have them - kernels in this process on virtual time, processes, containers
- and another way is one more class. It knows no story and judges none of it but the invariants
that its own event stream shows. Times are nanoseconds of the ground's clock: virtual ones on the
simulator, the monotonic clock of this host elsewhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from xpmem_emu.codec import Buffer
from xpmem_emu.image import Image
from xpmem_emu.judge.streams import StreamsEnd
from xpmem_emu.judge.verdict import Violation
from xpmem_emu.kernel.calls import Call, Status, Value
from xpmem_emu.kernel.interface import Outcome
from xpmem_emu.trace import Record


class Unanswered(Exception):
    """A partition that should answer does not: nobody knows how it is."""


class PendingCall:
    """A call under way. `ended` with `outcome` None: it was lost with its partition."""

    def __init__(self) -> None:
        self.ended = False
        self.outcome: Outcome | None = None

    def end(self, outcome: Outcome | None) -> None:
        """The call came to its end."""
        self.outcome, self.ended = outcome, True


@dataclass(slots=True)
class InjectionCount:
    """What a fault did to messages so far, on all partitions."""

    hits: int = 0
    held: int = 0


class BackendSpec(Protocol):
    """The partitions that somebody wants to stand on."""

    @property
    def partitions(self) -> Sequence[str]:
        """Their names, in the order of their partids."""

    @property
    def domains(self) -> Sequence[str]:
        """The coherence domain of each."""

    @property
    def image(self) -> Image:
        """What all of them boot."""


class Backend(Protocol):
    """Every method but `wait` returns without letting time pass for the story, except `up`,
    `down` and the verbs, which return when what they say has happened. All raise KernelError."""

    @property
    def name(self) -> str:
        """How `--on` calls it."""

    @property
    def partitions(self) -> Mapping[str, int]:
        """The names of all partitions with their partids."""

    @property
    def running(self) -> Sequence[str]:
        """The partitions that have a kernel, stopped ones too."""

    def up(self) -> None:
        """Start the partitions; returns when all are active with each other."""

    def down(self) -> None:
        """End them and remove everything they left; nothing happens when there is nothing."""

    # -- calls and looks -------------------------------------------------------------------

    def begin(self, partition: str, call: Call, bulk: Buffer = b"") -> PendingCall:
        """Start a call."""

    def ask(self, partition: str, call: Call) -> Value:
        """The answer to a call that only looks. Raises Unanswered."""

    def records(self) -> Sequence[Record]:
        """The event stream of all partitions so far; it only grows."""

    def now_ns(self) -> int:
        """The time."""

    def wait(self, condition: Callable[[], bool], patience_ns: int) -> bool:
        """Let time pass until `condition`; False when it took longer than `patience_ns`."""

    # -- faults ----------------------------------------------------------------------------

    def put_up(self, text: str) -> None:
        """Put up a fault, in the grammar of docs/faults.md, wherever it belongs."""

    def heal(self, name: str = "") -> None:
        """Take down one fault, or all, and cuts with them."""

    def release_held(self, name: str) -> None:
        """Let go the messages that a fault holds back."""

    def fault(self, name: str) -> InjectionCount:
        """What a fault did."""

    # -- from outside ----------------------------------------------------------------------

    def crash(self, partition: str) -> None:
        """Its process is killed."""

    def panic(self, partition: str) -> None:
        """Its kernel panics, and its process ends."""

    def hang(self, partition: str) -> None:
        """Its process is stopped."""

    def resume(self, partition: str) -> None:
        """Its process goes on."""

    def boot(self, partition: str) -> None:
        """A partition without a process gets one."""

    def reboot(self, partition: str) -> None:
        """It is shut down in order, and booted."""

    def cut(self, partition: str) -> None:
        """Nothing passes between it and the others."""

    def mend(self, partition: str) -> None:
        """It is connected again."""

    # -- judging ---------------------------------------------------------------------------

    def judge(self, ending: StreamsEnd) -> Sequence[Violation]:
        """Every invariant that the event stream shows broken. AT_REST: everything was healed and
        has ended, so nothing may be left over on the partitions that run."""


ASKED_TO_PANIC = "the story asked for it"
"""The reason of a panic that a step caused, and that is therefore no finding."""

OUTSIDE_VERBS = ("crash", "panic", "hang", "resume", "boot", "reboot", "cut", "mend")
"""What a step can do to a partition from outside: methods of a ground."""


def peer_state(ground: Backend, partition: str, peer: str) -> str:
    """The act_state of a partition towards a peer. Raises Unanswered."""
    status = ground.ask(partition, Status())
    return str(status["peers"][str(ground.partitions[peer])]["state"])
