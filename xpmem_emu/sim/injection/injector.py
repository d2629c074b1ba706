"""Puts the faults of a plan into a running cluster, and takes them out again."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from xpmem_emu.inject.grammar import parse_injection, renamed, stem
from xpmem_emu.inject.injections import Injection as Known
from xpmem_emu.inject.injections import PaceInjection
from xpmem_emu.inject.rules import Fate, Rule
from xpmem_emu.kernel.interface import Send
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.draw import forging
from xpmem_emu.sim.injection.forger import Forger
from xpmem_emu.sim.injection.injections import SimInjections
from xpmem_emu.sim.injection.stalled_store import StalledStore, begin_stores, land
from xpmem_emu.sim.operations.executor import Executor
from xpmem_emu.sim.plan import Forgery, InjectionKind, Plan, PlannedInjection
from xpmem_emu.trace import Record
from xpmem_emu.units import MILLISECOND
from xpmem_emu.xpc.frame import FIRST_ADMIN_CODE
from xpmem_emu.xpc.messages import MESSAGE_NAMES

RECENT = 48
REPLAYED_NS = (100 * MILLISECOND, 400 * MILLISECOND)
"""How many messages may come again after a crash or hang, and how long after its end."""
_NUMBERED = frozenset(name for name, kind in MESSAGE_NAMES.items() if kind.code >= FIRST_ADMIN_CODE)
HELD_NS = 300 * MILLISECOND
"""How long after healing the messages arrive that were held then."""


@dataclass(frozen=True, slots=True)
class _First:
    """A stopped process over which another one booted: what it wakes to, and when its end is
    proven after that, 0: when all is healed."""

    stores: list[StalledStore]
    proof_ns: int


class Injector:
    """The faults of one run. `injected` counts by kind what really happened."""

    def __init__(
        self, cluster: SimCluster, stage: Executor, plan: Plan, heard: Callable[[Record], None]
    ) -> None:
        """`heard` is told of every record about a fault of the grammar."""
        self._stage = stage
        self._cluster = cluster
        self._faults = SimInjections(self._cluster, plan.seed, heard)
        self._up: dict[str, Known] = {}
        self._since_ns: dict[str, int] = {}
        self._late: dict[int, list[StalledStore]] = {}
        self._stopped: dict[tuple[int, int], _First] = {}
        """By (partid, boot): processes over which another one was booted."""
        self._unproven: list[tuple[int, int]] = []
        """(partid, boot) of processes that ended, and nobody was told."""
        self._recent: deque[tuple[int, Send]] = deque(maxlen=RECENT)
        self._cluster.tap = self._note
        self.injected: Counter[str] = Counter()
        self._malicious = plan.malicious
        self._forger = Forger(cluster, stage.cast, plan.forgeries, self._forged)
        self.landed: list[tuple[StalledStore, int]] = []
        """Stores that landed late, and at which step."""
        for fault in plan.faults:
            self._cluster.at(fault.at_ns, partial(self._begin, fault))

    def heal(self, sound: Callable[[int], None]) -> None:
        """End everything that is still on: stopped ones wake, dead ones boot and are proven gone,
        faults go. What was held comes later, when there are new sessions already. `sound` is told
        of each malicious partition before a sound one boots in its place."""
        for (partid, boot), first in list(self._stopped.items()):
            self._end_first(partid, boot, first)
        for partid in self._cluster.partids:
            self._wake(partid)
            self._boot(partid)
        self._forger.end()
        for partid in sorted(self._malicious & self._cluster.kernels.keys()):
            sound(partid)
            self._replace(partid)
        self.revive()
        for name, fault in list(self._up.items()):
            if isinstance(fault, Rule) and fault.verdict is Fate.HOLD:
                fault.times = 0
                self._cluster.at(self._cluster.now_ns + HELD_NS, partial(self._end, name))
            else:
                self._end(name)

    def revive(self) -> None:
        """Boot all that have stopped, and prove all that ended gone."""
        for partid, kernel in list(self._cluster.kernels.items()):
            if kernel.stopped is not None:
                self._replace(partid)
        for partid, boot in list(self._unproven):
            self._prove(partid, boot)

    def _replace(self, partid: int) -> None:
        self._unproven.append((partid, self._cluster.boot_of(partid)))
        self._cluster.crash(partid)
        # Whoever claimed to be a later boot is heard again only when it is one.
        self._cluster.boot(partid, self._forger.claimed(partid))

    def _begin(self, fault: PlannedInjection) -> None:
        match fault.trouble:
            case InjectionKind.FAULT:
                self._put(fault)
            case InjectionKind.CRASH if fault.partid in self._cluster.kernels:
                self._crash(fault)
            case InjectionKind.HANG if fault.partid in self._cluster.kernels:
                self._hang(fault)
            case InjectionKind.SUPERSEDE if fault.partid in self._cluster.kernels:
                self._supersede(fault)

    # -- faults of the grammar -------------------------------------------------------------

    def _put(self, fault: PlannedInjection) -> None:
        known = self._up[fault.name] = renamed(parse_injection(fault.text), fault.name)
        self._faults.board.put(known)
        self._since_ns[fault.name] = self._cluster.now_ns
        self._cluster.at(fault.until_ns, partial(self._end, fault.name))

    def _end(self, name: str) -> None:
        fault = self._up.pop(name, None)
        if fault is None:
            return
        self.injected[stem(fault)] += fault.hits if isinstance(fault, Rule) else 1
        for partid in fault.partids if isinstance(fault, PaceInjection) else ():
            self._cluster.observer.resumed(partid, self._cluster.now_ns - self._since_ns[name])
        self._faults.board.remove(name)

    # -- messages from the past ------------------------------------------------------------

    def _forged(self, forgery: Forgery) -> None:
        self.injected["forgery"] += forgery.times
        self.injected[forging.situation(forgery)] += 1

    def _note(self, src: int, message: Send) -> None:
        self._forger.note(src, message)
        if message.kind in _NUMBERED:
            self._recent.append((src, message))

    def _replay_later(self, fault: PlannedInjection) -> None:
        """What was last said to and by a partition comes again when it has a new session."""
        old = [message for src, message in self._recent if fault.partid in (src, message.partid)]
        for after_ns in REPLAYED_NS:
            self._cluster.at(fault.until_ns + after_ns, lambda: self._replay(old))

    def _replay(self, messages: list[Send]) -> None:
        self.injected["replay"] += len(messages)
        for message in messages:
            self._cluster.arrive(message.partid, message.frames)

    # -- partitions ------------------------------------------------------------------------

    def _crash(self, fault: PlannedInjection) -> None:
        self.injured(fault)
        self._late.pop(fault.partid, None)
        boot = self._cluster.boot_of(fault.partid)
        self._cluster.crash(fault.partid)
        self._unproven.append((fault.partid, boot))
        if fault.proof_ns:
            self._cluster.at(fault.at_ns + fault.proof_ns, lambda: self._prove(fault.partid, boot))
        self._cluster.at(fault.until_ns, lambda: self._boot(fault.partid))

    def _prove(self, partid: int, boot: int) -> None:
        if (partid, boot) in self._unproven:
            self._unproven.remove((partid, boot))
            self._cluster.prove_gone(partid, boot)

    def _boot(self, partid: int) -> None:
        if partid not in self._cluster.kernels:
            self._cluster.boot(partid)

    def _hang(self, fault: PlannedInjection) -> None:
        if self._stop(fault):
            self._cluster.at(fault.until_ns, lambda: self._wake(fault.partid))

    def _stop(self, fault: PlannedInjection) -> bool:
        """Stop a partition in the middle of stores; False when it is stopped already."""
        if self._cluster.hung(fault.partid):
            return False
        self.injured(fault)
        self._late[fault.partid] = begin_stores(self._cluster, self._stage, fault.partid)
        self._cluster.hang(fault.partid)
        return True

    def injured(self, fault: PlannedInjection) -> None:
        """Count what happens to a partition; what it last said comes again when it is over."""
        self.injected[fault.trouble.value] += 1
        self._replay_later(fault)

    def _wake(self, partid: int) -> None:
        if not self._cluster.hung(partid):
            return
        self._land(self._late.pop(partid, []))
        self._cluster.resume(partid)

    def _land(self, stores: list[StalledStore]) -> None:
        for store in stores:
            land(self._cluster, self._stage, store)
            self.landed.append((store, self._cluster.steps))

    # -- a process over another ------------------------------------------------------------

    def _supersede(self, fault: PlannedInjection) -> None:
        """Stopped now; half of the time later another process boots over it."""
        if self._stop(fault):
            middle_ns = (fault.at_ns + fault.until_ns) // 2
            self._cluster.at(middle_ns, lambda: self._boot_over(fault))

    def _boot_over(self, fault: PlannedInjection) -> None:
        if not self._cluster.hung(fault.partid):
            return
        self.injected["boot_over_stopped"] += 1
        stores = self._late.pop(fault.partid, [])
        boot = self._cluster.supersede(fault.partid)
        first = self._stopped[fault.partid, boot] = _First(stores, fault.proof_ns)
        self._cluster.at(fault.until_ns, lambda: self._end_first(fault.partid, boot, first))

    def _end_first(self, partid: int, boot: int, first: "_First") -> None:
        """The first process wakes, its stores land, and it sees that it is not wanted."""
        if self._stopped.pop((partid, boot), None) is None:
            return
        self.injected["first_process_woke_in_store"] += len(first.stores)
        self._land(first.stores)
        self._cluster.end_superseded(partid, boot)
        self._unproven.append((partid, boot))
        if first.proof_ns:
            when_ns = self._cluster.now_ns + first.proof_ns
            self._cluster.at(when_ns, lambda: self._prove(partid, boot))
