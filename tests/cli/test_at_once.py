"""Work for many things at once."""

import threading

import pytest

from xpmem_emu.cli.at_once import at_once


def test_each_thing_has_its_own_end() -> None:
    def work(thing: str) -> int:
        if thing == "b":
            raise OSError(2, "gone")
        return ord(thing)

    attempts = at_once(work, "abc", 2)
    assert {thing: attempts[thing].result() for thing in "ac"} == {"a": 97, "c": 99}
    with pytest.raises(FileNotFoundError, match="gone"):
        attempts["b"].result()
    assert at_once(work, "", 2) == {}


@pytest.mark.parametrize("threads_max", [1, 3])
def test_as_many_are_done_at_once_as_may_be(threads_max: int) -> None:
    together = threading.Barrier(threads_max)
    names: set[str] = set()

    def work(_thing: str) -> int:
        names.add(threading.current_thread().name)
        return together.wait(60) + 1

    attempts = at_once(work, "abcdef", threads_max)
    assert sorted(each.result() for each in attempts.values()) == sorted(
        [*range(1, threads_max + 1)] * (6 // threads_max)
    )
    assert len(names) == threads_max
