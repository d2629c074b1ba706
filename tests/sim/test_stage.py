"""Operations of a plan, one small plan each: what they do, and what the history says of it."""

from collections.abc import Callable

from xpmem_emu.judge.history import ABSENT, Verb
from xpmem_emu.sim.cluster import SimCluster
from xpmem_emu.sim.injection.fatal import Fatal
from xpmem_emu.sim.operations.executor import Executor
from xpmem_emu.sim.plan import Op, Operation, RegionKind
from xpmem_emu.units import MILLISECOND, PAGE_SIZE

Do = Callable[..., None]


def staged() -> tuple[SimCluster, Executor, Do]:
    """A stage on two partitions, and a way to do one operation to its end."""
    cluster = SimCluster(2)
    cluster.run_until_active()
    stage = Executor(cluster, Fatal(cluster, lambda partid, thread: None).arm)

    def do(op: Op, **fields: object) -> None:
        stage.perform(Operation(cluster.now_ns, op, **fields))  # type: ignore[arg-type]
        cluster.run_for(5 * MILLISECOND)

    return cluster, stage, do


def shared(do: Do, number: int, slot: int) -> None:
    """Task `number` of p0 exports a page, which task 1 of p1 attaches at `slot` of place 90."""
    do(Op.SPAWN, made=number, partid=0)
    do(Op.MMAP, task=number, made=number + 1, pages=1, detail=RegionKind.PRIVATE)
    do(Op.MAKE, task=number, made=number + 2, region=number + 1, pages=1)
    do(Op.GET, task=1, made=number + 3, segment=number + 2)
    do(Op.ATTACH, task=1, made=number + 4, permit=number + 3, pages=1, beside=90, slot=slot)


def test_an_access_across_two_attachments_is_one_of_each_word_that_it_covers() -> None:
    _, stage, do = staged()
    do(Op.SPAWN, made=1, partid=1)
    shared(do, 10, slot=0)
    shared(do, 20, slot=1)
    across = {"task": 1, "attachment": 14, "behind": 24, "offset": PAGE_SIZE - 13, "size": 21}
    do(Op.STORE, **across)
    do(Op.LOAD, **across)
    seen = [(each.verb, each.word.region, each.word.word) for each in stage.history.accesses]
    covered = [(11, 2), (21, 0)]
    assert seen == [(verb, *word) for verb in (Verb.STORE, Verb.LOAD) for word in covered]
    assert len({each.seen or each.operand for each in stage.history.accesses}) == 1
    do(Op.STORE, task=1, attachment=14, offset=PAGE_SIZE - 4, size=4)
    assert len(stage.history.accesses) == 4, "a store that tears a tracked word is passed over"


def test_what_may_have_been_replaced_is_not_said_of_an_attachment() -> None:
    _, stage, do = staged()
    do(Op.SPAWN, made=1, partid=1)
    shared(do, 10, slot=0)
    do(Op.LOAD, task=1, attachment=14)
    do(Op.DETACH, task=1, attachment=14)
    do(Op.MMAP, task=1, made=30, pages=1, detail=RegionKind.PRIVATE, beside=90)
    do(Op.LOAD, task=1, attachment=14)
    assert len(stage.history.accesses) == 1
    assert stage.outcomes["mmap ok"] == 2


def test_a_call_takes_what_is_named_and_says_the_rest_itself() -> None:
    _, stage, do = staged()
    do(Op.SPAWN, made=1, partid=1)
    shared(do, 10, slot=0)
    do(Op.CALL, task=1, permit=13, detail="xpmem_attach", values={"offset": 0, "size": 1 << 63})
    do(Op.CALL, task=1, permit=13, detail="xpmem_attach", values={"offset": 0, "size": 1 << 64})
    do(Op.CALL, task=1, permit=13, detail="xpmem_release")
    assert stage.outcomes["xpmem_attach EINVAL"] == 1, "2^64 is no argument at all"
    assert stage.outcomes["xpmem_release ok"] == 1


def test_exec_and_mremap_take_words_away() -> None:
    _, stage, do = staged()
    shared(do, 10, slot=0)
    do(Op.MOVE, task=10, region=11, pages=1, made=30)
    do(Op.EXEC, task=10)
    assert [wipe.value for wipe in stage.history.wipes] == [ABSENT, ABSENT]
    assert (stage.outcomes["mremap ok"], stage.outcomes["exec ok"]) == (1, 1)


def test_two_shared_mappings_of_a_file_and_calls_have_the_same_words() -> None:
    _, stage, do = staged()
    for task in (1, 2):
        do(Op.SPAWN, made=task, partid=0)
    do(Op.MMAP, task=1, made=3, pages=1, detail=RegionKind.FILE)
    do(Op.MMAP, task=2, made=4, region=3, pages=1, detail=RegionKind.FILE)
    do(Op.MMAP, task=2, made=5, region=3, pages=1, detail=RegionKind.COPY)
    do(Op.PWRITE, task=1, region=3, word=1)
    do(Op.LOAD, task=2, region=4, word=1)
    do(Op.PREAD, task=2, region=3, word=1)
    do(Op.STORE, task=2, region=5, word=1)
    assert [each.seen for each in stage.history.accesses] == [None, 1, 1]
    assert {each.word.region for each in stage.history.accesses} == {3}
    assert stage.outcomes["store ok"] == 1, "a private mapping of the file is not tracked"
    do(Op.TRUNCATE, task=1, region=3)
    assert stage.history.wipes == [], "a file that is written by call is never cut off"


def test_a_task_is_killed_at_the_sleep_that_was_named() -> None:
    cluster, stage, do = staged()
    do(Op.SPAWN, made=1, partid=1)
    shared(do, 10, slot=0)
    killed = stage.cast.tasks[1]
    do(Op.LOAD, task=1, attachment=14, fatal=9)
    assert stage.outcomes["load ok"] == 1, "it never sleeps that often"
    do(Op.DETACH, task=1, attachment=14)
    do(Op.GET, task=1, made=40, segment=12, fatal=1)
    assert stage.outcomes["xpmem_get SIGKILL"] == 1
    assert all(task.pid != killed.pid for task in cluster.kernels[1].tasks)
