"""The health probe: `xpmem-emu-health [live|ready] [PARTITION]`, for containers and orchestrators.

    live    the partition's event loop turns: it hears its clients
    ready   its kernel answers calls; says with how many peers it is active

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
PURPOSE = "health"
_SUFFIX = f".{PURPOSE}"
TIMEOUT_S = 3.0
_ANSWER_MAX = 256
_USAGE = 64


def folder() -> str:
    """The run folder of the cluster; `live.paths` says the same, and takes longer to import."""
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


def main() -> int:
    """Entry point of the installed command."""
    words = sys.argv[1:] or [READY]
    if words[0] not in (LIVE, READY) or len(words) > 2:
        print("usage: xpmem-emu-health [live|ready] [PARTITION]", file=sys.stderr)
        return _USAGE
    here = folder()
    try:
        found = [name for name in sorted(os.listdir(here)) if name.endswith(_SUFFIX)]
    except OSError:
        found = []
    wanted = [f"{words[1]}{_SUFFIX}"] if len(words) == 2 else found
    if not wanted:
        print(f"no partition has booted in {here}", file=sys.stderr)
        return 1
    well = True
    for name in wanted:
        partition = name.removesuffix(_SUFFIX)
        try:
            said = probe(os.path.join(here, name), words[0])
        except OSError as error:
            said = f"not {words[0]}: {error.strerror or error}"
        print(f"{partition}: {said}")
        well = well and said.startswith(words[0])
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
