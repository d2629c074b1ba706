"""Processes that share the work of a campaign or a hunt."""

import multiprocessing as mp
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `jobs` processes. When the work is broken off, by Ctrl-C say, they end at once,
    whatever they are doing."""
    others = set(mp.active_children())
    pool = ProcessPoolExecutor(jobs, mp.get_context("fork"), initializer=deaf)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in set(mp.active_children()) - others:
            worker.terminate()
        raise
    pool.shutdown()


def deaf() -> None:
    """Ctrl-C on the terminal reaches all its processes, and the parent decides; SIGTERM is for
    this one alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
