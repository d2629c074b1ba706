"""The allow-list and what it grants, without sockets."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from xpmem_emu.client.injection_requests import Add, List, Reset
from xpmem_emu.client.wire import Hello
from xpmem_emu.cluster.keys import AllowList, Capability, Client, Key, KeyFolder, Peer
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel import breaking, calls
from xpmem_emu.live.console.allow_list import LiveAllowList
from xpmem_emu.live.console.limits import (
    QUEUED_MAX,
    REQUESTS_PER_S,
    UNREAD_MAX,
    Allowance,
    Turns,
    Unread,
)
from xpmem_emu.live.console.rights import Rights, needed, needed_for_faults
from xpmem_emu.live.console.sessions import ConsoleSessions
from xpmem_emu.xpc.frame import ChannelNumber, Header, claimed_source, encode_frame
from xpmem_emu.xpc.messages import Heartbeat

Refusal = Callable[..., KernelError]

USER = Client(5, [50], Capability.USE)
LOOKER = Client(6, [], Capability.LOOK)
OPERATOR = Client(0, [], Capability.OPERATE)


def public() -> str:
    return zmq.curve_keypair()[0].decode()


# -- the folder -------------------------------------------------------------------------------


def test_the_roster_follows_the_file_and_keeps_the_last_good_list(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    alice, p3 = folder.make({"alice": USER, "p3": Peer(3)})
    roster = LiveAllowList(folder)
    assert not roster.refresh()
    assert roster.client(alice.public) == alice
    assert (roster.peer(p3.public), roster.public_of(3)) == (3, p3.public)
    assert (roster.peer(alice.public), roster.client(p3.public)) == (None, None)
    folder.revoke("alice")
    assert roster.refresh()
    assert roster.client(alice.public) is None
    assert roster.why_not(alice.public) == "the key of alice was revoked"
    folder.allow_path.write_text("{")
    assert not roster.refresh()
    folder.allow_path.unlink()
    assert not roster.refresh()
    assert roster.peer(p3.public) == 3


@pytest.mark.parametrize("twice", ["name", "public", "partid", "revoked"])
def test_an_allow_list_with_anything_twice_is_refused(
    tmp_path: Path, twice: str, refusal: Refusal
) -> None:
    one, other = Key("a", public(), Peer(1)), Key("b", public(), Peer(2))
    same = {
        "name": Key("a", other.public, other.role),
        "public": Key("b", one.public, other.role),
        "partid": Key("b", other.public, Peer(1)),
        "revoked": Key("b", one.public, other.role),
    }[twice]
    keys = [one] if twice == "revoked" else [one, same]
    as_builtins = json.dumps(
        {
            "keys": [entry(key) for key in keys],
            "revoked": [entry(same)] if twice == "revoked" else [],
        }
    )
    (tmp_path / "allow.json").write_text(as_builtins)
    error = refusal(KeyFolder(tmp_path).read)
    assert error.errno == errno.EINVAL
    assert "is there twice" in error.cause


def entry(key: Key) -> dict[str, object]:
    assert isinstance(key.role, Peer)
    return {
        "name": key.name,
        "public": key.public,
        "role": {"is": "peer", "partid": key.role.partid},
    }


@pytest.mark.parametrize(("part", "mode"), [("private", 0o750), ("private/a.key_secret", 0o604)])
def test_a_private_key_that_others_can_reach_is_not_used(
    tmp_path: Path, part: str, mode: int, refusal: Refusal
) -> None:
    folder = KeyFolder(tmp_path / "keys")
    folder.make({"a": USER})
    (folder.path / part).chmod(mode)
    error = refusal(folder.pair, "a")
    assert error.errno == errno.EPERM
    assert "chmod" in error.remedy


def test_an_allow_list_that_others_may_write_is_not_read(tmp_path: Path, refusal: Refusal) -> None:
    folder = KeyFolder(tmp_path / "keys")
    folder.make({"a": USER})
    folder.allow_path.chmod(0o666)
    assert refusal(folder.read).errno == errno.EPERM


def test_a_key_that_a_crash_left_without_an_entry_is_used_again(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    (before,) = folder.make({"a": USER})
    folder.allow_path.unlink()
    (after,) = folder.make({"a": USER})
    assert after.public == before.public


def test_a_private_half_that_is_not_the_listed_one_is_refused(
    tmp_path: Path, refusal: Refusal
) -> None:
    folder, other = KeyFolder(tmp_path / "keys"), KeyFolder(tmp_path / "other")
    folder.make({"p0": Peer(0)})
    other.make({"p0": Peer(0)})
    secret = Path("private/p0.key_secret")
    (folder.path / secret).write_bytes((other.path / secret).read_bytes())
    assert refusal(folder.pair_of, 0).errno == errno.EKEYREJECTED


def test_a_client_is_asked_which_key_when_there_are_several(
    tmp_path: Path, refusal: Refusal
) -> None:
    folder = KeyFolder(tmp_path / "keys")
    folder.make({"p0": Peer(0), "a": USER})
    assert folder.client("", "p0").pair == folder.pair("a")
    folder.make({"b": USER})
    error = refusal(folder.client, "", "p0")
    assert error.errno == errno.ENOKEY
    assert "XPMEM_EMU_KEY" in error.remedy
    assert refusal(folder.client, "a", "p9").errno == errno.ENOKEY


# -- rights -----------------------------------------------------------------------------------


def test_what_nobody_thought_of_takes_operate() -> None:
    class Brandnew(calls.Call, frozen=True):
        pass

    assert needed(Brandnew()) is Capability.OPERATE
    assert needed(breaking.CrashKernel(reason="x")) is Capability.OPERATE
    assert needed(calls.Shutdown()) is Capability.OPERATE
    assert needed(calls.Spawn()) is Capability.USE
    assert needed(calls.Look(kind="tasks")) is Capability.LOOK
    assert needed_for_faults(List()) is Capability.LOOK
    assert needed_for_faults(Add(text="")) is Capability.OPERATE
    assert needed_for_faults(Reset()) is Capability.OPERATE


def test_tasks_belong_to_uids_through_spawn_fork_setuid_and_death(refusal: Refusal) -> None:
    rights = Rights()

    def denied(call: calls.Call) -> bool:
        return refusal(rights.checked, USER, call).errno == errno.EPERM

    assert rights.checked(USER, calls.Spawn()) == calls.Spawn(uid=5, gids=[50])
    rights.account(calls.Spawn(uid=5), 1)
    rights.account(calls.Fork(pid=1), 2)
    rights.account(calls.Spawn(uid=0), 3)
    for pid in (1, 2):
        assert rights.checked(USER, calls.Load(pid=pid, address=0, size=1))
    assert denied(calls.Load(pid=3, address=0, size=1))
    assert denied(calls.Load(pid=9, address=0, size=1))
    assert denied(calls.Setuid(pid=1, uid=5))
    rights.account(calls.Setuid(pid=2, uid=7), None)
    assert denied(calls.Exit(pid=2))
    rights.account(calls.Exit(pid=1), None)
    assert denied(calls.Exit(pid=1))
    assert refusal(rights.checked, LOOKER, calls.Spawn()).errno == errno.EPERM
    anything = calls.Kill(pid=3)
    assert rights.checked(OPERATOR, anything) is rights.checked(None, anything) is anything


def test_a_session_is_of_one_key_whatever_its_connection_is_called(refusal: Refusal) -> None:
    sessions = ConsoleSessions(lease_ns=10, most=100)
    mine = Hello(session="ab" * 8, client="c")
    session = sessions.hello(0, b"one", mine, "key A")
    assert sessions.heard(1, b"one", "key A") is session
    assert sessions.heard(1, b"one", "key B") is None
    assert refusal(sessions.hello, 0, b"two", mine, "key B").errno == errno.EACCES


@pytest.mark.parametrize("source", [0, 1, 127, 128, 255])
def test_the_source_of_a_frame_is_read_without_the_rest(source: int) -> None:
    header = Header(source, 1 << 40, 1 << 50, ChannelNumber.ADMIN, 0)
    assert claimed_source(encode_frame(header, Heartbeat(1, False, 0, False))) == source


@pytest.mark.parametrize("frame", [b"", b"\x98", b"\xff" * 40, b"\x93\x01\x02\xa1x", b"\x98\x01"])
def test_the_source_of_nonsense_is_nobody(frame: bytes) -> None:
    assert claimed_source(frame) is None


# -- limits -----------------------------------------------------------------------------------


def test_clients_have_one_turn_each_however_much_they_ask() -> None:
    turns: Turns[str] = Turns()
    for number in range(QUEUED_MAX):
        assert turns.put("flood", f"flood {number}")
    assert not turns.put("flood", "one too many")
    for client in ("a", "b"):
        assert turns.put(client, f"{client} 0")
    assert [turns.take() for _ in range(5)] == ["flood 0", "a 0", "b 0", "flood 1", "flood 2"]
    assert turns.put("a", "a 1")
    assert [turns.take() for _ in range(3)] == ["flood 3", "a 1", "flood 4"]
    assert len(turns) == QUEUED_MAX - 5
    while turns.take() is not None:
        assert len(turns) < QUEUED_MAX
    assert turns.take() is None


def test_who_asks_for_much_work_has_fewer_turns() -> None:
    turns: Turns[str] = Turns()
    for number in range(20):
        assert turns.put("dear", f"dear {number}")
        assert turns.put("cheap", f"cheap {number}")
    served = []
    for _ in range(15):
        one = str(turns.take())
        served.append(one.split()[0])
        turns.charge(served[-1], 9 if served[-1] == "dear" else 1)
    assert served.count("cheap") > 3 * served.count("dear") > 0
    # Who was away has saved nothing up, and owes nothing that others have had meanwhile.
    assert turns.put("new", "new 0")
    assert turns.put("new", "new 1")
    following = [str(turns.take()).split()[0] for _ in range(4)]
    assert "new" in following
    assert following != ["new"] * 4


def test_an_allowance_is_used_up_and_grows_again_with_time() -> None:
    allowance = Allowance(0)
    assert all(allowance.take(0) for _ in range(REQUESTS_PER_S))
    assert not allowance.take(0)
    tenth_ns = 100_000_000
    assert all(allowance.take(tenth_ns) for _ in range(REQUESTS_PER_S // 10))
    assert not allowance.take(tenth_ns)
    assert allowance.take(10**12)
    assert sum(allowance.take(10**12) for _ in range(2 * REQUESTS_PER_S)) == REQUESTS_PER_S - 1


def test_an_empty_allow_list_lets_nobody_in() -> None:
    assert AllowList().named("a") is AllowList().partition(0) is None


class Tracker:
    """Of a message that is sent when the test says so."""

    def __init__(self) -> None:
        self.done = False


def test_answers_that_are_read_count_no_more_even_behind_one_that_is_stuck() -> None:
    unread, trackers = Unread(), [Tracker() for _ in range(3)]
    for tracker in trackers:
        unread.add(tracker, UNREAD_MAX // 2)  # type: ignore[arg-type]
    assert unread.too_many()
    trackers[2].done = True
    assert not unread.too_many()
    unread.add(Tracker(), 1)  # type: ignore[arg-type]
    assert unread.too_many()
    trackers[0].done = True
    assert not unread.too_many()
