"""The installed command, and `python -m xpmem_emu`: what holds before and after everything else.

Little is imported here, so that little can happen before it is guarded: Ctrl-C is one line and
exit code 130 while the program is still being loaded, and a quiet end when all is done.

Of the three standard streams, closed ones are replaced, as gnulib does: else a socket would get
number 1, and a child's output. What is said on stderr may be lost, and that changes nothing; what
is lost of stdout is an error (`cli.failure`).
"""

import io
import os
import signal
import sys
import warnings
from contextlib import suppress
from typing import Any, TextIO

_INTERRUPTED = 130


class Data(io.FileIO):
    """Stdout. `lost`: why nothing more can be written; what follows is not tried, or the last flush
    of the interpreter would complain once more and change the exit code."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            if self.lost is None:
                return super().write(data)
        except OSError as error:
            self.lost = error
            raise
        return memoryview(data).nbytes


class Talk(io.FileIO):
    """Stderr, which nobody need read: a full disk or a closed pipe behind it stops no work."""

    def write(self, data: Any) -> int:
        with suppress(OSError):
            return super().write(data)
        return memoryview(data).nbytes


def _replace_closed_streams() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            if null != number:
                os.close(null)


def text_stream(raw: io.FileIO, replaced: TextIO | None) -> io.TextIOWrapper:
    """A text stream that writes to `raw`, in the encoding of the one that it replaces."""
    # What a terminal cannot show is no reason to fail: names of files may be any bytes.
    encoding = getattr(replaced, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding,
        "backslashreplace",
        line_buffering=raw.fileno() == 2 or raw.isatty(),
    )


def main() -> int:
    """Entry point: runs the command line of this process; its exit code."""
    try:
        _replace_closed_streams()
        sys.stdout = text_stream(Data(1, "wb", closefd=False), sys.stdout)
        sys.stderr = text_stream(Talk(2, "wb", closefd=False), sys.stderr)
        from xpmem_emu.cli.main import main as command

        code = command()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = _INTERRUPTED
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A simulated kernel that is dropped in the middle has coroutines that never began: no news.
    warnings.simplefilter("ignore", RuntimeWarning)
    return code


if __name__ == "__main__":
    sys.exit(main())
