"""What `xpmem-emu-health metrics` prints and `xpmem-emu-health serve PORT` serves: how partitions
are, in the text format of Prometheus.

    xpmem_emu_well{partition="p0"} 1

A probe must not judge whether all peers are active, or one lost partition would have the others
restarted. Whoever raises alarms must, so it is told here. A partition that does not answer is not
ready and has no other number. Numbers only, and nothing can be asked for: no key is needed.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

GAUGES = {
    "ready": "Whether its kernel answers calls.",
    "well": "Whether it is ready and active with all of its peers.",
    "peers": "How many partitions it knows of.",
    "peers_active": "How many of them it is active with.",
    "uptime_seconds": "Since it booted.",
    "tasks": "Tasks that it has.",
    "frames": "Page frames of its memory.",
    "frames_used": "Page frames that are in use.",
    "frames_quarantined": "Page frames that a lost partition may still write to.",
}
"""Every metric and what it says of a partition; names have `xpmem_emu_` before them."""
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


Numbers = Mapping[str, float]
"""What a partition says of itself, by the names of GAUGES."""


def exposition(told: Mapping[str, Numbers]) -> str:
    """The metrics of these partitions, which `told` has by name."""
    lines: list[str] = []
    for name, meaning in GAUGES.items():
        lines += [f"# HELP xpmem_emu_{name} {meaning}", f"# TYPE xpmem_emu_{name} gauge"]
        lines += [
            f'xpmem_emu_{name}{{partition="{partition}"}} {numbers[name]:.15g}'
            for partition, numbers in told.items()
            if name in numbers
        ]
    return "\n".join([*lines, ""])


class _Page(BaseHTTPRequestHandler):
    """Answers GET /metrics."""

    def do_GET(self) -> None:
        """A scrape."""
        if self.path != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        assert isinstance(self.server, _Server)
        body = exposition(self.server.ask()).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", _CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a line for each scrape tells nobody anything."""


class _Server(ThreadingTCPServer):
    """Not http's own, which asks a name server for the name of this host first."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, ask: Callable[[], Mapping[str, Numbers]]) -> None:
        self.ask = ask
        super().__init__(("", port), _Page)


def serve(port: int, ask: Callable[[], Mapping[str, Numbers]]) -> None:
    """Answer whoever comes to that port, 0: to any that is free, with what `ask` gives then, until
    interrupted. Raises OSError, and OverflowError for what is no port."""
    with _Server(port, ask) as server:
        print(f"metrics at port {server.server_address[1]}", flush=True)
        server.serve_forever()
