"""Puts the faults of a plan into a running cluster, and takes them out again."""

from collections import Counter, deque
from functools import partial

from xpmem_emu.fabric.rules import Match, Rule, Verdict
from xpmem_emu.kernel.interface import Send
from xpmem_emu.sim.late import LateStore, begin_stores, land
from xpmem_emu.sim.plan import Fault, Plan, Trouble
from xpmem_emu.sim.stage import Stage
from xpmem_emu.units import MILLISECOND
from xpmem_emu.xpc.frame import FIRST_ADMIN_CODE
from xpmem_emu.xpc.messages import MESSAGE_NAMES

RECENT = 48
REPLAYED_NS = (100 * MILLISECOND, 400 * MILLISECOND)
"""How many messages may come again after a crash or hang, and how long after its end."""
_NUMBERED = frozenset(
    name for name, kind in MESSAGE_NAMES.items() if kind.code >= FIRST_ADMIN_CODE
)
HELD_NS = 300 * MILLISECOND
"""How long after healing the messages arrive that were held then."""


class Troubles:
    """The faults of one run. `injected` counts by kind what really happened."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self._stage = stage
        self._cluster = stage.cluster
        self._rules: dict[str, Rule] = {}
        self._late: dict[int, list[LateStore]] = {}
        self._recent: deque[tuple[int, Send]] = deque(maxlen=RECENT)
        self._cluster.tap = self._note
        self.injected: Counter[str] = Counter()
        self.landed: list[tuple[LateStore, int]] = []
        """Stores that landed late, and at which step."""
        for fault in plan.faults:
            self._cluster.at(fault.at_ns, partial(self._begin, fault))

    def heal(self) -> None:
        """End everything that is still on: rules go, stopped ones wake, dead ones boot. What was
        held comes later, when there are new sessions already."""
        held = [rule for rule in self._rules.values() if rule.verdict is Verdict.HOLD]
        for rule in self._rules.values():
            self.injected[rule.verdict.value] += rule.hits
            if rule not in held:
                self._cluster.remove_rule(rule.name)
        self._rules.clear()
        for rule in held:
            rule.times = 0
            self._cluster.at(
                self._cluster.now_ns + HELD_NS, partial(self._cluster.remove_rule, rule.name)
            )
        for partid in self._cluster.partids:
            self._wake(partid)
            self._boot(partid)

    def _begin(self, fault: Fault) -> None:
        match fault.trouble:
            case Trouble.RULE:
                self._add_rule(fault)
            case Trouble.CRASH if fault.src in self._cluster.kernels:
                self._crash(fault)
            case Trouble.HANG if fault.src in self._cluster.kernels:
                self._hang(fault)

    # -- between partitions ----------------------------------------------------------------

    def _add_rule(self, fault: Fault) -> None:
        rule = Rule(
            fault.name, Verdict(fault.verdict),
            Match(
                fault.kind or None, None if fault.src < 0 else fault.src,
                None if fault.dst < 0 else fault.dst,
            ),
            probability=fault.probability, delay_ns=fault.delay_ns, jitter_ns=fault.jitter_ns,
        )  # fmt: skip
        self._rules[fault.name] = rule
        self._cluster.interconnect.add(rule)
        self._cluster.at(fault.until_ns, lambda: self._end_rule(fault))

    def _end_rule(self, fault: Fault) -> None:
        rule = self._rules.pop(fault.name, None)
        if rule is not None:
            self.injected[fault.verdict] += rule.hits
            self._cluster.remove_rule(fault.name)

    # -- messages from the past ------------------------------------------------------------

    def _note(self, src: int, message: Send) -> None:
        if message.kind in _NUMBERED:
            self._recent.append((src, message))

    def _replay_later(self, fault: Fault) -> None:
        """What was last said to and by a partition comes again when it has a new session."""
        old = [message for src, message in self._recent if fault.src in (src, message.partid)]
        for after_ns in REPLAYED_NS:
            self._cluster.at(fault.until_ns + after_ns, lambda: self._replay(old))

    def _replay(self, messages: list[Send]) -> None:
        self.injected["replay"] += len(messages)
        for message in messages:
            self._cluster.arrive(message.partid, message.frames)

    # -- partitions ------------------------------------------------------------------------

    def _crash(self, fault: Fault) -> None:
        self.injected["crash"] += 1
        self._late.pop(fault.src, None)
        self._replay_later(fault)
        boot = self._cluster.boot_of(fault.src)
        self._cluster.crash(fault.src)
        if fault.proof_ns:
            self._cluster.at(
                fault.at_ns + fault.proof_ns, lambda: self._cluster.prove_gone(fault.src, boot)
            )
        self._cluster.at(fault.until_ns, lambda: self._boot(fault.src))

    def _boot(self, partid: int) -> None:
        if partid not in self._cluster.kernels:
            self._cluster.boot(partid)

    def _hang(self, fault: Fault) -> None:
        if self._cluster.hung(fault.src):
            return
        self.injected["hang"] += 1
        self._replay_later(fault)
        self._late[fault.src] = begin_stores(self._stage, fault.src)
        self._cluster.hang(fault.src)
        self._cluster.at(fault.until_ns, lambda: self._wake(fault.src))

    def _wake(self, partid: int) -> None:
        if not self._cluster.hung(partid):
            return
        for store in self._late.pop(partid, []):
            land(self._stage, store)
            self.landed.append((store, self._cluster.steps))
        self._cluster.resume(partid)
