"""Words on fetch-and-op pages of mspec, which only their task fills (sources T6)."""

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Area, Export, Script, where
from xpmem_emu.units import MILLISECOND, PAGE_SIZE

_AMOS = ("add", "add", "fetch", "swap", "compare_swap")
_DISTURBANCES = (Op.MIGRATE, Op.PAGEOUT, Op.DONTNEED, Op.PUNCH, Op.RECLAIM, Op.REMAP)


def mspec(script: Script) -> None:
    """An owner touches some pages sooner, some later, others ask for any of them at any time; some
    have a device, which gets none. Word 0 is only added to."""
    random = script.random
    owner = script.spawn(script.partition())
    users = [script.spawn(script.partition()) for _ in range(random.randint(2, 4))]
    script.settle()
    words = script.export(owner, random.randint(2, 4), RegionKind.MSPEC)
    script.settle()
    views = [script.attach(user, words, 0, words.pages) for user in users]
    script.settle()
    places: list[Area] = [words, *views]
    devices = {place.task: random.choice(("", "gru", "mirror")) for place in places}
    for place in places:
        if detail := devices[place.task]:
            script.do(Op.DEVICE, task=place.task, detail=detail, **where(place))
    while script.more():
        roll = random.random()
        if roll < 0.25:
            _touch(script, words, devices)
        elif roll < 0.85:
            _touch(script, random.choice(views), devices)
        elif roll < 0.95:
            _disturb(script, words)
        else:
            _again(script, words)
        script.pause()
        script.soon(2 * MILLISECOND)


def _touch(script: Script, place: Area, devices: dict[int, str]) -> None:
    random = script.random
    page, word = random.randrange(place.pages), random.randrange(3)
    op = random.choice((Op.AMO, Op.AMO, Op.LOAD, Op.STORE)) if word else Op.AMO
    detail = random.choice(_AMOS) if word else "add"
    device = devices[place.task] if op is Op.LOAD and random.random() < 0.4 else ""
    if op is not Op.AMO:
        detail = ""
    script.do(
        op, task=place.task, page=page, word=word, detail=detail, device=device, **where(place)
    )


def _disturb(script: Script, words: Export) -> None:
    """What other memory would be moved by, or lose."""
    page, pages = script.part(words)
    fields = {"task": words.task, "region": words.region, "page": page, "pages": pages}
    if script.random.random() < 0.4:
        length = {"length": pages * PAGE_SIZE}
        script.do(Op.CALL, detail="zap_page_range", values=length, **fields)
    else:
        script.do(script.random.choice(_DISTURBANCES), **fields)


def _again(script: Script, words: Export) -> None:
    """A child of the owner touches what it has inherited."""
    child = script.number()
    script.do(Op.FORK, task=words.task, made=child)
    script.soon(2 * MILLISECOND)
    script.do(Op.LOAD, task=child, region=words.region, page=script.random.randrange(words.pages))
