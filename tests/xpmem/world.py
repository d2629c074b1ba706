"""The usual cast: an exporter on p0, an importer on p1, and what stands between them."""

from dataclasses import dataclass, field

from xpmem_emu.errors import KernelError, Signalled, errno_name
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, Call
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.task import SimTask
from xpmem_emu.units import PAGE_SIZE

PAGE = PAGE_SIZE
PAGES = 8
AT = 0x10_0000_0000
FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


@dataclass
class World:
    """Exporter with 8 pages at `base`, exported as `segid`; importer of another partition."""

    cluster: SimCluster
    exporter: SimTask = field(init=False)
    importer: SimTask = field(init=False)
    base: int = field(init=False)
    segid: int = field(init=False)

    def __post_init__(self) -> None:
        self.exporter = self.cluster.spawn(0, uid=1000, gids=[100])
        self.importer = self.cluster.spawn(1, uid=1000, gids=[100])
        self.base = self.exporter.mmap(PAGES * PAGE)
        self.exporter.store(self.base, b"exporter" * (PAGES * PAGE // 8))
        self.segid = self.exporter.xpmem_make(self.base, PAGES * PAGE, 0o640)

    def spawn(self, partid: int, uid: int = 1000, gids: list[int] | None = None) -> SimTask:
        """Another task with the device open."""
        return self.cluster.spawn(partid, uid, gids or [100])

    def bare(self, partid: int, uid: int = 1000) -> SimTask:
        """A task without xpmem state."""
        pid = self.cluster.call(partid, calls.Spawn(uid=uid, gids=[100])).value
        return SimTask(self.cluster, partid, pid)

    def permit(self, flags: int = 2) -> int:
        """A permit of the importer."""
        return self.importer.xpmem_get(self.segid, flags)

    def attached(self, vaddr: int = AT) -> int:
        """A whole attachment of the importer."""
        return self.importer.xpmem_attach(self.permit(), 0, PAGES * PAGE, vaddr)

    def do(self, task: SimTask, call: Call) -> object:
        """Any call."""
        return self.cluster.call(task.partid, call).value

    def state(self) -> object:
        """Everything that a refused call must not change."""
        looks = [
            self.cluster.call(partid, calls.Look(kind)).value
            for partid in self.cluster.kernels
            for kind in ("segments", "permits", "attachments", "tasks", "pins")
        ]
        pages = [
            self.cluster.kernels[task.partid].tasks.get(task.pid)
            for task in (self.exporter, self.importer)
        ]
        areas = [[str(vma) for vma in task.mm.vmas] for task in pages if task is not None]
        return looks, areas


def outcome_of(action: object) -> str:
    """`ok`, the errno's name, or the signal's name."""
    assert callable(action)
    try:
        action()
    except KernelError as error:
        return errno_name(error.errno) if error.cause else "a refusal that does not say why"
    except Signalled as signalled:
        info = signalled.info
        return info.signal.name if info.reason else "a signal that does not say why"
    return "ok"
