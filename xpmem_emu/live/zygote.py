"""Many partition processes out of one: import once, fork for each.

Most of what a partition process does before it boots is to import its code. The zygote does that
once for all partitions that are started together.

    launcher                   zygote                 children
    starts it  --------------> forks  --------------> wait for their byte
    reads the pids <---------- prints them, exits
    records the pids
    writes a byte for each -------------------------> are the partitions

A child that finds the pipe closed instead ends: its launcher is gone and has recorded nobody.
"""

import errno
import gc
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from xpmem_emu.errors import KernelError

CONFIG_SUFFIX = ".config.json"
ALONE = {"OPENBLAS_NUM_THREADS": "1"}
"""Of the environment: what keeps numpy from starting threads, which no fork would take along."""


def log_of(config: Path) -> Path:
    """Where the partition of that configuration file writes its log."""
    return config.with_name(config.name.removesuffix(CONFIG_SUFFIX) + ".log")


@contextmanager
def forked(command: Sequence[str], configs: Sequence[Path]) -> Iterator[list[int]]:
    """The pids of processes that become the partitions of `configs` at the end of the block; they
    end without a trace if it raises. Raises KernelError ECHILD with what the zygote said."""
    arguments = [part for config in configs for part in ("--config", str(config))]
    with (
        log_of(configs[0]).open("a+b") as log,
        subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=os.environ | ALONE,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        pids = [int(line) for line in process.stdout.read().split()]
        if process.wait() or len(pids) != len(configs):
            log.seek(0)
            raise KernelError(
                errno.ECHILD,
                f"no partition could be started: {log.read().decode().strip()}",
                "xpmem-emu doctor",
            )
        yield pids
        process.stdin.write(b"\n" * len(pids))


def fork_each(configs: Sequence[Path]) -> Path | None:
    """In the zygote: a child for each, whose pids are printed. Result: None; and in each child,
    once it may begin, its configuration."""
    gc.freeze()  # or the first collection of each child would copy the pages that all share
    for config in configs:
        pid = os.fork()
        if pid == 0:
            return _begun(config)
        print(pid, flush=True)
    return None


def _begun(config: Path) -> Path:
    # Of a session of its own, so that signals to another partition's do not reach it.
    os.setsid()
    log = os.open(log_of(config), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if not os.read(0, 1):
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(log)
    os.close(nothing)
    # All have one command line; this name is what tells them apart in `top` and `ps -o comm`.
    Path("/proc/self/comm").write_text(config.name.removesuffix(CONFIG_SUFFIX))
    return config
