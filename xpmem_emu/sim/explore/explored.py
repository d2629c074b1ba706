"""One explored world while it is under way: cluster, tasks, judges, and what happens from outside.

A stopped partition is caught in the middle of stores, as in a campaign (`late`): the words land
when it wakes, before anything else happens.
"""

from collections.abc import Callable

from xpmem_emu.inject.events import InjectionHit
from xpmem_emu.judge.checkers.raw import FRAME_SHIFT, PARTID_SHIFT, RESIDENT, entry
from xpmem_emu.judge.monitor import Monitor
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.kernel.interface import Done
from xpmem_emu.sim.explore.cluster import Letter, OpenCluster
from xpmem_emu.sim.explore.world import Act, Moment, World
from xpmem_emu.sim.injection.stalled_store import StalledStore, begin_stores, land
from xpmem_emu.sim.operations.executor import Executor
from xpmem_emu.sim.operations.registry import WORD_OFFSETS
from xpmem_emu.sim.ticket import Ticket
from xpmem_emu.trace import Record
from xpmem_emu.units import MILLISECOND, PAGE_SHIFT
from xpmem_emu.xpc.reasons import Reason

SIGKILL = 9
"""The incarnations of all sessions."""


class ExploredWorld:
    """A world, set up and ready to be explored."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.watch = Monitor(world.image_of(0))
        self.pick: Callable[[int, int], int] = lambda partid, runnable: 0
        """Chooses among the runnable threads of a partition."""
        self.cluster = OpenCluster(
            world.partitions,
            world.image_of,
            self.watch,
            lambda partid, runnable: self.pick(partid, runnable),
        )
        self.watch.follow(self.cluster)
        self.stage = Executor(self.cluster)
        self.stage.accesses.caught = self.watch.shadow.caught
        self.tickets: dict[str, Ticket] = {}
        """Calls of the programs, by the text of their act."""
        self.noted: dict[str, int] = {}
        """What a world's own acts saw."""
        self.poisoned: list[tuple[int, int]] = []
        """Frames that went bad, with their homes."""
        self._hurts: list[str] = []
        """Messages that were lost, or later than a deadline."""
        self._caught: dict[tuple[int, int], list[StalledStore]] = {}
        self._bounds: dict[str, list[tuple[object, ...]]] = {}
        """Of each act that began: what had ended by then, the sessions, and those at its end."""
        self.cluster.run_until_active()
        for each in world.setup:
            self.stage.perform(each)
            self.cluster.run_until(lambda: not self.cluster.outstanding)
        self.cluster.run_for(5 * MILLISECOND)
        self.cluster.open()

    # -- calls -------------------------------------------------------------------------------

    def perform(self, act: Act) -> None:
        """Begin an act of a program."""
        before = len(self.cluster.begun)
        self._bounds[act.text] = [tuple(self._ended()), self.moment()]
        act.do(self)
        for ticket in self.cluster.begun[before:]:
            self.tickets[act.text] = ticket

    def value(self, text: str) -> bytes | None:
        """What the load of that text saw; None when it saw nothing."""
        ticket = self.tickets.get(text)
        if ticket is None or not isinstance(ticket.outcome, Done):
            return None
        return bytes(ticket.outcome.bulk)

    def went_well(self, text: str) -> bool:
        """Whether the call of that text was made and succeeded."""
        ticket = self.tickets.get(text)
        return ticket is not None and isinstance(ticket.outcome, Done)

    def busy(self, partid: int) -> bool:
        """Whether a call on that partition is under way."""
        return any(ticket.partid == partid for ticket in self.cluster.outstanding)

    def ended(self, text: str) -> bool:
        """Whether the act of that text began and has ended."""
        return text in self._bounds and (text not in self.tickets or self.tickets[text].ended)

    def order(self) -> list[tuple[str, list[tuple[object, ...]]]]:
        """Of each act: which had ended when it began, and in which sessions it began and ended.
        S8 asks for no more of the order of steps of different partitions."""
        for text, ticket in self.tickets.items():
            if ticket.ended and len(self._bounds[text]) == 2:
                self._bounds[text].append(self.moment())
        return sorted(self._bounds.items())

    def moment(self) -> Moment:
        """Who has which session with whom."""
        sessions, everybody = self.watch.scene.sessions, self.cluster.partids
        return tuple(sessions.incarnation(a, b) for a in everybody for b in everybody if a != b)

    def _ended(self) -> list[str]:
        return sorted(text for text, ticket in self.tickets.items() if ticket.ended)

    def frame(self, region: int, page: int) -> int | None:
        """The frame behind an exporter's page, where one is mapped."""
        place = self.stage.cast.regions[region]
        kernel = self.cluster.kernels[place.actor.partid]
        found = entry(kernel, place.actor.pid, (place.address >> PAGE_SHIFT) + page)
        if found is None or not found & RESIDENT:
            return None
        return found >> FRAME_SHIFT & (1 << PARTID_SHIFT) - 1

    def peek(self, region: int, page: int, word: int) -> int | None:
        """An exporter's word in raw memory, where its page is mapped."""
        frame = self.frame(region, page)
        if frame is None:
            return None
        home = self.stage.cast.regions[region].actor.partid
        arena = self.cluster.arena(home, self.cluster.boot_of(home))
        at = (frame << PAGE_SHIFT) + WORD_OFFSETS[word]
        return int.from_bytes(arena[at : at + 8], "little")

    # -- what happens from outside -------------------------------------------------------------

    def hurt(self, letter: Letter, verdict: str) -> None:
        """Tell the judges that a message is lost or late: that may cost its sender its session."""
        self._hurts.append(f"{verdict} {letter} {letter.number}")
        hit = InjectionHit(
            name="explored",
            verdict=verdict,
            kind=letter.kind,
            src=letter.src,
            dst=letter.dst,
            number=letter.number,
        )
        self.watch.take(Record(0, self.cluster.now_ns, letter.src, "", hit))

    def stop(self, partid: int) -> None:
        """The process of a partition is stopped, in the middle of stores."""
        boot = self.cluster.boot_of(partid)
        self._caught[partid, boot] = begin_stores(self.cluster, self.stage, partid)
        self.cluster.hang(partid)

    def wake(self, partid: int) -> None:
        """A stopped process goes on."""
        self.land(partid, self.cluster.boot_of(partid))
        self.cluster.resume(partid)

    def land(self, partid: int, boot: int) -> None:
        """The stores land in which a process was caught."""
        for store in self._caught.pop((partid, boot), []):
            land(self.cluster, self.stage, store)

    def boot_over(self, partid: int) -> None:
        """A second process with the same name boots, if the first one is merely stopped."""
        if self.cluster.hung(partid):
            self.cluster.supersede(partid)

    def crash(self, partid: int) -> None:
        """The process of a partition vanishes."""
        self.cluster.crash(partid)

    def poison(self, region: int, page: int) -> None:
        """The frame behind an exporter's page goes bad, and everybody is told."""
        frame, home = self.frame(region, page), self.stage.cast.regions[region].actor.partid
        if frame is not None:
            self.poisoned.append((home, frame))
            for partid in list(self.cluster.kernels):
                self.cluster.submit(partid, breaking.Poison(home, frame))

    def unpoison(self) -> None:
        """All frames are good again."""
        for home, frame in self.poisoned:
            for partid in list(self.cluster.kernels):
                self.cluster.submit(partid, breaking.Unpoison(home, frame))

    def give_up(self, partid: int, peer: int) -> None:
        """A partition gives another one up, which had stood still for a moment."""
        self.watch.scene.injuries.stood_still(self.cluster.now_ns, peer)
        self.cluster.kernels[partid].xpc.deactivate(peer, Reason.NO_HEARTBEAT, "the world says so")
        self.cluster.poke(partid)

    def kill(self, task: int) -> None:
        """A task is killed."""
        actor = self.stage.cast.tasks[task]
        self.cluster.submit(actor.partid, calls.Kill(actor.pid, SIGKILL))

    def close(self) -> None:
        """Nobody needs it any more."""
        self.cluster.down()

    def state(self) -> tuple[object, ...]:
        """What decides, beside the cluster, how things go on and how they are judged."""
        caught = sorted((key, len(stores)) for key, stores in self._caught.items())
        noted = sorted(self.noted.items())
        return self.order(), caught, noted, self._hurts
