"""Block copies between permits and atomic operations on uncached words, of every domain."""

from dataclasses import replace

from xpmem_emu.sim.plan import Op, RegionKind
from xpmem_emu.sim.workloads.script import Export, Import, Script
from xpmem_emu.units import MILLISECOND, PAGE_SIZE

_EASE_NS = 25 * MILLISECOND
"""So slowly that a program outlives the time in which a session would end by what it did."""
_AMOS = ("add", "add", "fetch", "swap", "compare_swap")


def devices(script: Script) -> None:
    """Engines copy between what tasks of other partitions export, while pages move and attachments
    come and go; counters are changed beside it."""
    random = script.random
    owners = [script.spawn(script.partition()) for _ in range(2)]
    engine = script.spawn(script.partition())
    script.settle()
    buffers = [script.export(owner, random.randint(1, 6), RegionKind.SCRATCH) for owner in owners]
    words = script.export(owners[0], 1, RegionKind.UNCACHED)
    script.settle()
    sides = [script.attach(engine, buffer, 0, buffer.pages) for buffer in buffers]
    counter = script.attach(engine, words, 0, 1)
    script.settle()
    at_ease = random.random() < 0.6
    while script.more():
        roll = random.random()
        if roll < 0.4:
            _copy(script, engine, *random.sample(sides, 2))
        elif roll < 0.8:
            _count(script, counter, words)
        elif roll < 0.88:
            _disturb(script, random.choice(buffers))
        elif roll < 0.91:
            words, counter = _removed(script, words, counter)
        else:
            sides[random.randrange(2)] = _again(script, engine, random.choice(buffers))
        script.pause()
        script.soon(_EASE_NS if at_ease else 1)


def _copy(script: Script, engine: int, source: Import, target: Import) -> None:
    random = script.random
    most = min(source.pages, target.pages) * PAGE_SIZE
    size = random.choice((1, 8, 100, PAGE_SIZE, most, most + 1))
    script.do(
        Op.CALL,
        task=engine,
        permit=source.permit,
        into=target.permit,
        detail="xpmem_copy",
        values={
            "src_offset": random.choice((0, 0, 8, PAGE_SIZE)),
            "dst_offset": random.choice((0, 0, 1, PAGE_SIZE)),
            "size": size,
        },
    )


def _count(script: Script, counter: Import, words: Export) -> None:
    random = script.random
    word = random.randrange(2)
    detail = "add" if word == 0 else random.choice(_AMOS)
    if random.random() < 0.2:
        script.do(Op.AMO, task=words.task, region=words.region, word=word, detail=detail)
    else:
        script.do(
            Op.AMO, task=counter.task, attachment=counter.attachment, word=word, detail=detail
        )


def _disturb(script: Script, buffer: Export) -> None:
    page, pages = script.part(buffer)
    op = script.random.choice((Op.MIGRATE, Op.PAGEOUT, Op.DONTNEED, Op.MUNMAP, Op.REMAP, Op.REMAP))
    script.do(op, task=buffer.task, region=buffer.region, page=page, pages=pages)


def _removed(script: Script, words: Export, counter: Import) -> tuple[Export, Import]:
    """The segment goes while it is counted on, and comes back under another name."""
    script.do(Op.REMOVE, task=words.task, segment=words.segment)
    for _ in range(script.random.randint(1, 3)):
        script.soon(4 * MILLISECOND)
        _count(script, counter, words)
    again = replace(words, segment=script.number())
    script.do(Op.MAKE, task=words.task, made=again.segment, region=words.region, pages=1)
    script.settle()
    return again, script.attach(counter.task, again, 0, 1)


def _again(script: Script, engine: int, buffer: Export) -> Import:
    return script.attach(engine, buffer, 0, buffer.pages)
