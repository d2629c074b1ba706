"""The health probe: `xpmem-emu-health [live|ready] [PARTITION]`, for containers and orchestrators.

    live    the partition's event loop turns: it hears its clients
    ready   its kernel answers calls; says with how many peers it is active

And for those who watch: `metrics [PARTITION]` prints the same as numbers, `serve PORT` lets them be
scraped (`metrics`).

It asks the socket that `live.health` keeps in the run folder, where only the partition's own user
gets to: no key is needed, and no other partition can make the answer worse. Whether all peers are
active is told and not judged: one lost partition must not make the others look ill. Without
PARTITION every partition of the cluster that booted here is asked; a container has one.

Runs every few seconds for ever, so it imports nothing that it can do without: neither the command
line nor ZeroMQ. Exit codes: 0 yes, 1 no, 64 usage.
"""

import os
import socket
import sys

LIVE = "live"
READY = "ready"
METRICS = "metrics"
_SERVE = "serve"
PURPOSE = "health"
_SUFFIX = f".{PURPOSE}"
TIMEOUT_S = 3.0
_ANSWER_MAX = 256
_USAGE = 64
_HELP = "usage: xpmem-emu-health [live|ready|metrics] [PARTITION], or serve PORT"


def folder() -> str:
    """The run folder of the cluster; `cluster.paths` says the same, and takes longer to import."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    root = os.path.join(runtime, "xpmem-emu") if runtime else f"/tmp/xpmem-emu-{os.geteuid()}"
    return os.path.join(root, os.environ.get("XPMEM_EMU_CLUSTER") or "default")


def probe(path: str, question: str, timeout_s: float = TIMEOUT_S) -> str:
    """What the partition behind the socket `path` says. Raises OSError when it says nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        own.settimeout(timeout_s)
        # An address of ours, chosen by the system, so that there is something to answer to.
        own.bind("")
        own.sendto(question.encode(), path)
        return own.recv(_ANSWER_MAX).decode()


def booted_here() -> list[str]:
    """The partitions of the cluster that booted here."""
    try:
        names = sorted(os.listdir(folder()))
    except OSError:
        return []
    return [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]


def socket_path(partition: str) -> str:
    """Where that partition is asked."""
    return os.path.join(folder(), partition + _SUFFIX)


def main() -> int:
    """Entry point of the installed command."""
    words = sys.argv[1:] or [READY]
    if len(words) == 2 and words[0] == _SERVE and words[1].isdecimal():
        return _serve(int(words[1]))
    if words[0] not in (LIVE, READY, METRICS) or len(words) > 2:
        print(_HELP, file=sys.stderr)
        return _USAGE
    wanted = words[1:] or booted_here()
    if not wanted:
        print(f"no partition has booted in {folder()}", file=sys.stderr)
        return 1
    if words[0] == METRICS:
        from xpmem_emu import metrics

        print(metrics.exposition(_numbers_of(wanted)), end="")
        return 0
    answers = [_tell(partition, words[0]) for partition in wanted]
    return 0 if all(answers) else 1


def _tell(partition: str, question: str) -> bool:
    """Prints what a partition answers; whether that is yes."""
    try:
        said = probe(socket_path(partition), question)
    except OSError as error:
        said = f"not {question}: {error.strerror or error}"
    print(f"{partition}: {said}")
    return said.startswith(question)


def _numbers_of(partitions: list[str]) -> dict[str, dict[str, float]]:
    """What partitions say of themselves, as `metrics` prints it. One that does not answer, or whose
    kernel refuses and says why in words, is not ready and has no other number."""
    found: dict[str, dict[str, float]] = {}
    for partition in partitions:
        try:
            said = probe(socket_path(partition), METRICS)
            numbers = {
                name: float(value) for name, value in (each.split("=") for each in said.split())
            }
            well = float(numbers["peers"] == numbers["peers_active"])
        except (OSError, ValueError):
            found[partition] = {"ready": 0, "well": 0}
        else:
            found[partition] = {"ready": 1, "well": well} | numbers
    return found


def _serve(port: int) -> int:
    from xpmem_emu import metrics

    try:
        metrics.serve(port, lambda: _numbers_of(booted_here()))
    except KeyboardInterrupt:
        return 0
    except (OSError, OverflowError) as error:
        print(f"port {port}: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
