"""The client library against a partition whose kernel is fake: transport, errors, discovery."""

import errno
import pickle
import threading
import time

import pytest

from tests.live.conftest import Up
from tests.live.fake_kernel import PEER_MEMORY
from xpmem_emu import connect
from xpmem_emu.backend import processes
from xpmem_emu.client import operations
from xpmem_emu.client.dial import CONNECT_TIMEOUT_S
from xpmem_emu.client.failures import SigBus, XpmemError, xpmem_error
from xpmem_emu.client.operations import CHUNK
from xpmem_emu.cluster.paths import run_folder
from xpmem_emu.kernel import calls

pytestmark = pytest.mark.live


@pytest.mark.parametrize("at_once", [1, 2, operations.CHUNKS_AHEAD])
def test_what_is_stored_is_loaded_across_chunks(
    up: Up, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(operations, "CHUNKS_AHEAD", at_once)
    up(1, memory=8 << 20)
    data = bytes(range(256)) * (3 * CHUNK // 256) + b"tail"
    with connect("p0", "t") as p0:
        task = p0.spawn()
        task.store(4096, data)
        assert task.load(4096, len(data)) == data
        assert task.load(4096, 0) == b""
        task.store(4096, bytearray(b"head"))
        assert task.load(4096, 8) == b"head" + data[4:8]


def test_a_transfer_ends_where_it_fails_however_long_it_is(up: Up) -> None:
    """A million pieces, of which each would be refused: it would take longer than anybody waits."""
    up(1, memory=8 << 20)
    with connect("p0", "t", timeout=20) as p0:
        task = p0.spawn()
        with pytest.raises(SigBus):
            task.load(0, 1 << 40)
        assert task.load(0, 1) == b"\0"


def test_partitions_of_one_folder_share_memory(up: Up) -> None:
    up(2)
    with connect("p0", "t") as p0, connect("p1", "t") as p1:
        p0.spawn().store(0, b"across")
        assert p1.spawn().load(PEER_MEMORY, 6) == b"across"


def test_a_signal_of_a_task_is_an_exception_that_says_where_and_why(up: Up) -> None:
    up(1)
    with connect("p0", "t") as p0, pytest.raises(SigBus, match="nothing is there") as caught:
        p0.spawn().load(1 << 30, 1)
    assert caught.value.info.address == 1 << 30


def test_the_device_is_opened_when_a_task_has_no_xpmem_state(up: Up) -> None:
    up(1)
    with connect("p0", "t") as p0:
        assert p0.spawn().xpmem_make(0, 4096) == 0x1234


def test_a_refusal_is_the_builtin_exception_of_its_errno_with_cause_and_remedy(up: Up) -> None:
    up(1)
    with connect("p0", "t") as p0, pytest.raises(FileNotFoundError) as caught:
        p0.spawn().xpmem_remove(5)
    error = caught.value
    assert isinstance(error, XpmemError)
    assert (error.errno, error.cause) == (errno.ENOENT, "no such segment")
    assert str(error) == "no such segment (ENOENT); try: xpmem-emu get segments"


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(xpmem_error(errno.EACCES, "why", "how")))
    assert isinstance(error, PermissionError)
    assert isinstance(error, XpmemError)
    assert (error.errno, error.cause, error.remedy) == (errno.EACCES, "why", "how")


def test_a_cluster_that_is_not_there_is_named_with_a_remedy(home: object) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no cluster nowhere.*up"):
        connect("p0", "nowhere")


def test_a_partition_that_is_not_there_is_answered_with_those_that_are(up: Up) -> None:
    up(2)
    with pytest.raises(FileNotFoundError, match=r"no partition p7.*one of p0, p1"):
        connect("p7", "t")


def test_a_dead_partition_refuses_at_once(up: Up) -> None:
    up(1)
    processes.crash("t", "p0")
    with pytest.raises(ConnectionRefusedError, match="nobody answers"):
        connect("p0", "t")


def test_the_cluster_comes_from_the_environment_and_endpoints_are_names_too(
    up: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(1)
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "t")
    with connect("p0") as p0:
        assert p0.facts.cluster == "t"
    with connect(f"ipc://{run_folder('t')}/p0.console") as p0:
        assert p0.facts.name == "p0"


def test_a_call_without_an_answer_times_out_and_its_late_answer_is_ignored(up: Up) -> None:
    up(1)
    with connect("p0", "t") as p0:
        with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
            p0.call(calls.Describe(what="wait"), timeout=0.1)
        p0.call(calls.Describe(what="go"))
        assert p0.status()["partid"] == 0


def test_threads_share_a_connection_without_waiting_for_each_other(up: Up) -> None:
    up(1)
    with connect("p0", "t") as p0, p0.events() as events:
        answers: list[object] = []
        waiter = threading.Thread(
            target=lambda: answers.append(p0.call(calls.Describe(what="wait")).value)
        )
        waiter.start()
        p0.spawn()
        next(events)
        while not answers:
            p0.call(calls.Describe(what="go"))
            waiter.join(0.05)
    assert answers == ["went"]


def test_a_connection_does_not_outlive_the_boot_it_was_made_to(up: Up) -> None:
    up(1)
    with connect("p0", "t") as p0:
        task = p0.spawn()
        processes.reboot("t", "p0")
        with pytest.raises(ConnectionResetError):
            task.load(0, 1)
        for _ in range(2):
            with pytest.raises(XpmemError, match="is meant"):
                task.load(0, 1)


def test_a_closed_connection_refuses_calls(up: Up) -> None:
    up(1)
    p0 = connect("p0", "t")
    p0.close()
    p0.close()
    with pytest.raises(XpmemError, match="closed"):
        p0.status()


def test_a_port_where_nobody_listens_refuses_at_once() -> None:
    begun = time.monotonic()
    with pytest.raises(ConnectionRefusedError, match="nobody listens at tcp:"):
        connect("tcp://127.0.0.1:1")
    assert time.monotonic() - begun < CONNECT_TIMEOUT_S / 2


def test_who_means_a_boot_that_is_over_is_refused(up: Up) -> None:
    up(1)
    with connect("p0", "t") as before:
        boot = before.facts.boot
        with connect("p0", "t", boot=boot) as same:
            assert same.facts.boot == boot
        processes.reboot("t", "p0")
        # Of this connection too: a further line of its own would reach another boot.
        for ask in (lambda: connect("p0", "t", boot=boot), before._new_line):
            with pytest.raises(XpmemError) as caught:
                ask()
            assert caught.value.errno == errno.ESTALE
            assert str(boot) in caught.value.cause
            assert caught.value.remedy
