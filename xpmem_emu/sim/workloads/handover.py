"""One attachment takes over from another: what is given back and what is asked for may cross."""

from dataclasses import replace

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.held import set_failpoint
from xpmem_emu.sim.workloads.script import Import, Script
from xpmem_emu.units import MILLISECOND

_MOVES = (Op.MIGRATE, Op.DONTNEED)
_GOODBYE, _LATE = "xpmem.evict.before_tell", "1*delay(25ms)"


def handover(script: Script) -> None:
    """An importer gives pages back and wants them again through its next attachment at once; then
    they move, and whoever still maps them must be known to their home."""
    random = script.random
    home, away = random.sample(range(script.knobs.partitions), 2)
    owner, user = script.spawn(home), script.spawn(away)
    script.settle()
    export = script.export(owner, random.randint(1, 2), RegionKind.PRIVATE)
    script.settle()
    view = script.attach(user, export, 0, export.pages)
    script.settle()
    while script.more():
        view = _over(script, view)
        pages = {"page": 0, "pages": export.pages}
        script.do(random.choice(_MOVES), task=owner, region=export.region, **pages)
        script.touch(view, random.choice((Op.LOAD, Op.STORE)))
        script.pause()
    _farewell(script, view)


def _farewell(script: Script, view: Import) -> None:
    """The permit goes with its pages while another of the task stays, which keeps no page."""
    script.settle()
    script.do(Op.GET, task=view.task, made=next(script.numbers), segment=view.export.segment)
    script.touch(view, Op.LOAD)
    script.settle()
    set_failpoint(script, view.task, "failpoint_set", _GOODBYE, _LATE)
    script.do(Op.RELEASE, task=view.task, permit=view.permit)


def _over(script: Script, old: Import) -> Import:
    """Use the old attachment, give it up, and use a new one while the goodbye is on its way."""
    random = script.random
    script.touch(old, Op.STORE)
    script.settle()
    new = replace(old, attachment=next(script.numbers))
    if random.random() < 0.5:  # the goodbye is late: there is time for questions to overtake it
        set_failpoint(script, old.task, "failpoint_set", _GOODBYE, _LATE)
    if random.random() < 0.3:
        new = replace(new, permit=next(script.numbers))
        script.do(Op.RELEASE, task=old.task, permit=old.permit)
        script.soon(200_000)
        script.do(Op.GET, task=new.task, made=new.permit, segment=old.export.segment)
        script.now_ns += random.choice((2, 5, 9)) * MILLISECOND
    else:
        if random.random() < 0.5:
            # By another permit, which it has already: nothing orders the two messages.
            new = replace(new, permit=next(script.numbers))
            script.do(Op.GET, task=new.task, made=new.permit, segment=old.export.segment)
            script.settle()
        script.do(Op.DETACH, task=old.task, attachment=old.attachment)
    script.do(
        Op.ATTACH,
        task=new.task,
        made=new.attachment,
        permit=new.permit,
        page=new.first,
        pages=new.pages,
    )
    for _ in range(random.randint(2, 5)):
        script.now_ns += random.randrange(1_000_000)
        script.touch(new, Op.STORE)
    return new
