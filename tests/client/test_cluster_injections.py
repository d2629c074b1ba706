"""A fault over several partitions is put up everywhere or nowhere."""

import errno
from typing import cast

import pytest

from xpmem_emu.client.blocking import Partition
from xpmem_emu.client.cluster_injections import (
    heal_injections,
    inject_everywhere,
    injections_in_force,
)
from xpmem_emu.client.failures import xpmem_error
from xpmem_emu.inject.grammar import parse_injection

DROP = parse_injection("drop --prob 0")


class Board:
    """The faults of one partition, and how it fails."""

    def __init__(self, fails: int = 0, heard: bool = False) -> None:
        self.up: list[str] = []
        self._fails, self._heard = fails, heard

    def fault_add(self, text: str, seed: int) -> None:
        name = parse_injection(text).name
        if self._fails and not self._heard:
            raise xpmem_error(self._fails, "not here")
        if name in self.up:
            raise xpmem_error(errno.EEXIST, f"a fault named {name} is in force")
        self.up.append(name)
        if self._fails:
            raise xpmem_error(self._fails, "who knows")

    def fault_remove(self, name: str) -> None:
        if name not in self.up:
            raise xpmem_error(errno.ENOENT, f"no fault is named {name}")
        self.up.remove(name)

    def fault_list(self) -> list[dict[str, object]]:
        return [{"name": name, "hits": 2, "held": 1} for name in self.up]


def cluster(*boards: Board) -> dict[str, Partition]:
    return {f"p{number}": cast(Partition, board) for number, board in enumerate(boards)}


def test_a_fault_without_a_name_gets_one_that_is_free_everywhere() -> None:
    boards = Board(), Board()
    boards[1].up.append("drop-1")
    assert inject_everywhere(cluster(*boards), DROP, 0).name == "drop-2"
    assert [board.up for board in boards] == [["drop-2"], ["drop-1", "drop-2"]]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ECONNRESET, errno.ETIMEDOUT])
def test_what_one_refuses_is_taken_back_from_the_others(number: int) -> None:
    boards = Board(), Board(), Board(number), Board()
    with pytest.raises(OSError, match="not here") as caught:
        inject_everywhere(cluster(*boards), DROP, 0)
    assert caught.value.errno == number
    assert [board.up for board in boards] == [[], [], [], []]


def test_who_did_not_answer_in_time_is_told_to_forget_it_too() -> None:
    boards = Board(), Board(errno.ETIMEDOUT, heard=True)
    with pytest.raises(TimeoutError):
        inject_everywhere(cluster(*boards), DROP, 0)
    assert [board.up for board in boards] == [[], []]


def test_a_fault_that_has_the_name_already_stays_where_it_is() -> None:
    boards = Board(), Board()
    boards[1].up.append("mine")
    with pytest.raises(FileExistsError):
        inject_everywhere(cluster(*boards), parse_injection("drop --prob 0 --name mine"), 0)
    assert [board.up for board in boards] == [[], ["mine"]]


def test_faults_are_counted_over_all_and_healed_wherever_they_are() -> None:
    boards = Board(), Board(), Board()
    boards[0].up += ["a", "b"]
    boards[2].up += ["a"]
    partitions = cluster(*boards)
    rows = injections_in_force(partitions.items())
    assert rows["a"] == {"name": "a", "hits": 4, "held": 2, "on": ["p0", "p2"]}
    assert rows["b"]["on"] == ["p0"]
    assert heal_injections(partitions.items(), ["a", "c"]) == ["a"]
    assert [board.up for board in boards] == [["b"], [], []]
