"""The launcher: what `up` starts, `down` ends, and what a crash leaves is cleaned."""

import errno
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import zmq

from tests.live.conftest import FAKE, Home, Up, fake_spec
from tests.live.loops import statuses
from xpmem_emu.backend import processes
from xpmem_emu.backend.starting import no_progress
from xpmem_emu.client.blocking import connect
from xpmem_emu.cluster.liveness import life_path, living
from xpmem_emu.cluster.paths import arena_folder, run_folder
from xpmem_emu.cluster.state import locked, read_state
from xpmem_emu.cluster.topology import PartitionSpec
from xpmem_emu.errors import KernelError

pytestmark = pytest.mark.live

Refusal = Callable[..., KernelError]


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def kill_all(state: object) -> None:
    for one in state.partitions:  # type: ignore[attr-defined]
        process = psutil.Process(one.pid)
        process.kill()
        process.wait(10)


def test_up_returns_when_every_partition_is_active_with_every_other(home: Home) -> None:
    steps: list[tuple[int, int, str]] = []
    processes.up(fake_spec(3), lambda *step: steps.append(step))
    for name, answer in statuses("t").items():
        assert [peer["state"] for peer in answer["peers"].values()] == ["ACTIVE"] * 2, name
    assert [done for done, _, _ in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1] == (6, 6, "p2 active")


def test_nobody_is_waited_for_who_is_active_already(
    up: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = up(3)
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    standing = {one.name: {0, 1, 2} - {one.partid} for one in state.partitions}
    processes._wait_active(state, standing, no_progress, time.monotonic() + 60)
    assert pauses == []


def test_down_leaves_no_process_no_socket_no_arena_and_no_folder(up: Up, home: Home) -> None:
    state = up(2)
    assert home.leftovers()
    processes.down("t")
    assert [one.pid for one in state.partitions if alive(one.pid)] == []
    assert home.leftovers() == []
    assert list(home.run.iterdir()) == []


def test_an_orderly_end_of_a_partition_unlinks_its_arena_and_sockets(up: Up) -> None:
    state = up(1)
    assert list(arena_folder("t").glob("*.arena"))
    with connect("p0", "t") as p0:
        p0.shutdown()
    psutil.Process(state.partitions[0].pid).wait(10)
    assert list(arena_folder("t").glob("*.arena")) == []
    assert [path for path in run_folder("t").iterdir() if path.is_socket()] == []


def test_a_second_up_says_that_the_cluster_runs_and_disturbs_nothing(
    up: Up, refusal: Refusal
) -> None:
    state = up(2)
    error = refusal(up, 2)
    assert error.errno == errno.EEXIST
    assert "p0, p1" in error.cause
    assert "down" in error.remedy
    assert all(alive(one.pid) for one in state.partitions)
    assert statuses("t").keys() == {"p0", "p1"}


def test_up_works_after_everything_was_killed(up: Up) -> None:
    dead = up(2)
    kill_all(dead)
    stale = set(arena_folder("t").glob("*.arena"))
    assert stale
    state = up(2)
    assert not stale & set(arena_folder("t").glob("*.arena"))
    assert {one.pid for one in state.partitions}.isdisjoint(one.pid for one in dead.partitions)


def test_clean_removes_nothing_of_the_living_and_everything_of_the_dead(up: Up, home: Home) -> None:
    up(2)
    processes.crash("t", "p0")
    before = home.leftovers()
    assert processes.clean("t") == ["p1"]
    assert home.leftovers() == before
    processes.crash("t", "p1")
    assert home.leftovers()
    for _ in range(2):
        assert processes.clean("t") == []
        assert home.leftovers() == []


def test_down_spares_a_process_that_merely_got_the_pid_of_a_partition(up: Up) -> None:
    state = up(1)
    kill_all(state)
    stranger = psutil.Popen(["sleep", "60"])
    try:
        path = run_folder("t") / "cluster.json"
        pid = state.partitions[0].pid
        path.write_text(path.read_text().replace(f'"pid": {pid}', f'"pid": {stranger.pid}'))
        assert read_state("t").partitions[0].pid == stranger.pid
        processes.down("t")
        assert alive(stranger.pid)
    finally:
        stranger.kill()
        stranger.wait(10)


def test_a_partition_that_dies_at_boot_is_reported_with_the_end_of_its_log(
    up: Up, home: Home, refusal: Refusal
) -> None:
    error = refusal(lambda: up(1, command=("/bin/sh", "-c", "echo out of luck; exit 3")))
    assert error.errno == errno.ECHILD
    assert "out of luck" in error.cause
    assert error.remedy == "xpmem-emu logs p0"
    assert home.leftovers() == [run_folder("t")]
    assert {path.name for path in run_folder("t").iterdir()} == {"p0.log", "cluster.json"}
    assert "out of luck" in (run_folder("t") / "p0.log").read_text()
    processes.down("t")
    assert home.leftovers() == []


def test_a_partition_that_dies_when_another_answers_is_noticed_at_once(
    up: Up, refusal: Refusal
) -> None:
    console = run_folder("t") / "p0.console"
    script = (
        f'case "$*" in *p1.config*) while [ ! -S {console} ]; do :; done; '
        f'echo out of luck; exit 3;; esac; exec {shlex.join(FAKE)} "$@"'
    )
    error = refusal(lambda: up(2, command=("/bin/sh", "-c", script, "sh")))
    assert error.errno == errno.ECHILD
    assert "p1 (pid " in error.cause
    assert "out of luck" in error.cause


def test_who_does_not_become_active_in_time_is_named_with_the_end_of_its_log(
    up: Up, refusal: Refusal
) -> None:
    spec = fake_spec(1, command=("/bin/sh", "-c", "echo thinking; exec sleep 1000"))
    error = refusal(lambda: processes.up(spec, timeout_s=0.5))
    assert error.errno == errno.ETIMEDOUT
    assert "p0 is not up: nobody answers at" in error.cause
    assert error.cause.endswith("thinking")
    assert error.remedy == "xpmem-emu logs p0, or xpmem-emu up --timeout 5m"


def test_an_arena_that_does_not_fit_is_a_clear_refusal(up: Up, refusal: Refusal) -> None:
    error = refusal(lambda: up(1, memory=1 << 44))
    assert error.errno == errno.ECHILD
    assert "no room for an arena of 16T" in error.cause


@pytest.mark.parametrize("whose", ["endpoint", "console"])
def test_a_busy_endpoint_is_a_clear_refusal(up: Up, refusal: Refusal, whose: str) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as busy:
        port = busy.bind_to_random_port("tcp://127.0.0.1")
        endpoint = f"tcp://127.0.0.1:{port}"
        partitions = (PartitionSpec("p0", 0, **{whose: endpoint}),)
        error = refusal(lambda: up(partitions=partitions, insecure=True))
    assert f"cannot listen at {endpoint}" in error.cause
    assert "EADDRINUSE" in error.cause


def test_a_socket_path_that_is_too_long_is_refused_before_anything_starts(
    home: Home, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home.run / ("x" * 90)))
    error = refusal(processes.up, fake_spec(1))
    assert error.errno == errno.ENAMETOOLONG
    assert "107" in error.cause
    assert "XDG_RUNTIME_DIR" in error.remedy
    assert not run_folder("t").exists()


def test_two_launchers_do_not_change_one_cluster_at_once(
    up: Up, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xpmem_emu.cluster.state._LOCK_PATIENCE_S", 0.1)
    with locked("t"):
        assert refusal(up, 1).errno == errno.EBUSY


def test_partitions_talk_over_tcp_when_the_topology_says_so(up: Up) -> None:
    with zmq.Context() as context:
        ports = []
        for _ in range(2):
            with context.socket(zmq.ROUTER) as probe:
                ports.append(probe.bind_to_random_port("tcp://127.0.0.1"))
    partitions = tuple(
        PartitionSpec(f"p{number}", number, endpoint=f"tcp://127.0.0.1:{port}")
        for number, port in enumerate(ports)
    )
    up(partitions=partitions, insecure=True)
    with connect("p0", "t") as p0:
        assert p0.boot_facts().traffic["received"] > 0


def test_ps_tells_running_stopped_and_dead_apart(up: Up) -> None:
    state = up(3)
    processes.hang("t", "p1")
    processes.crash("t", "p2")
    assert [row.state for row in processes.ps("t")] == ["running", "stopped", "dead"]
    processes.resume("t", "p1")
    assert processes.ps("t")[1].state == "running"
    assert processes.ps("t")[0].pid == state.partitions[0].pid


def test_down_ends_a_stopped_partition_too(up: Up) -> None:
    state = up(1)
    processes.hang("t", "p0")
    processes.down("t")
    assert not alive(state.partitions[0].pid)


def test_a_crashed_partition_boots_again_with_a_higher_boot_number(
    up: Up, refusal: Refusal
) -> None:
    up(2)
    assert refusal(processes.boot, "t", "p1").errno == errno.EEXIST
    with connect("p1", "t") as before:
        processes.crash("t", "p1")
        processes.boot("t", "p1")
        with connect("p1", "t") as after:
            assert after.facts.boot > before.facts.boot


def test_reboot_shuts_down_in_order_and_boots(up: Up) -> None:
    pid = up(1).partitions[0].pid
    processes.reboot("t", "p0")
    assert not alive(pid)
    assert "halt" in Path(processes.ps("t")[0].log).read_text()


def test_a_peer_gets_proof_when_a_crashed_process_is_gone(up: Up) -> None:
    up(2)
    boot = living_boot(1)
    with connect("p0", "t") as p0, p0.events() as events:
        processes.crash("t", "p1")
        proof = next(one for one in events if one["event"] == "fake:process_gone")
    assert (proof["peer"], proof["boot"]) == (1, boot)


def test_a_peer_gets_no_proof_of_a_stopped_process_until_it_is_dead(up: Up) -> None:
    stopped = psutil.Process(up(2).partitions[1].pid)
    with connect("p0", "t") as p0, p0.events() as events:
        processes.hang("t", "p1")
        assert next(one for one in events if one["event"] == "fake:peer_lost")["peer"] == 1
        with pytest.raises(psutil.TimeoutExpired):
            stopped.wait(0.6)
        p0.spawn("marker")
        processes.crash("t", "p1")
        told = (str(one["event"]) for one in events)
        seen = next(each for each in told if each in ("fake:task_born", "fake:process_gone"))
    assert seen == "fake:task_born"


def test_a_panic_ends_the_process_with_70_and_says_why_in_the_log(up: Up) -> None:
    one = up(1).partitions[0]
    with connect("p0", "t") as p0, pytest.raises(OSError, match="asked to") as caught:
        p0.describe("panic")
    assert caught.value.errno == errno.EHOSTDOWN
    assert psutil.Process(one.pid).wait(10) == 70
    assert '"asked to"' in Path(one.log).read_text()


def test_a_kernel_that_raises_is_a_panic(up: Up) -> None:
    one = up(1).partitions[0]
    with connect("p0", "t") as p0, pytest.raises(OSError, match="a bug of the kernel"):
        p0.describe("raise")
    assert psutil.Process(one.pid).wait(10) == 70


def test_sigterm_shuts_down_in_order(up: Up) -> None:
    one = up(1).partitions[0]
    os.kill(one.pid, signal.SIGTERM)
    assert psutil.Process(one.pid).wait(10) == 0


def test_partitions_booted_one_by_one_in_the_foreground_make_a_cluster(home: Home) -> None:
    booted = [subprocess.Popen([*FAKE, "t", name], stderr=subprocess.PIPE) for name in ("p0", "p1")]
    try:
        for process in booted:
            assert process.stderr is not None
            assert b'"event": "boot"' in process.stderr.readline()
        with connect("p0", "t") as p0, p0.events() as events:
            while p0.status()["peers"][1]["state"] != "ACTIVE":
                assert booted[1].poll() is None
            processes.crash("t", "p1")
            assert next(one for one in events if one["event"] == "fake:process_gone")["peer"] == 1
        processes.down("t")
        assert booted[0].wait(10) == 0
        assert home.leftovers() == []
    finally:
        for process in booted:
            if process.stderr is not None:
                process.stderr.close()
            process.kill()


def living_boot(partid: int) -> int:
    life = living(life_path(arena_folder("t"), partid))
    assert life is not None
    return life.boot
