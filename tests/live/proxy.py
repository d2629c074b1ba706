"""A TCP proxy in the middle that keeps what the clients said and can say it again.

A handshake takes turns, so what is said again waits for an answer after each of its first pieces,
as long as there is one.
"""

import contextlib
import socket
import threading
from types import TracebackType

_TURNS = 6
_ANSWER_S = 0.5


class Proxy:
    """Forwards connections to `port` of this host. `said` has the pieces that came over each
    connection, from client to server, in the order of the connections."""

    def __init__(self, port: int) -> None:
        self.said: list[list[bytes]] = []
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> None:
        """End every connection."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def replay(self, number: int) -> socket.socket:
        """Say to the server, on a new connection, what client `number` said."""
        twin = socket.create_connection(("127.0.0.1", self._target))
        twin.settimeout(_ANSWER_S)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for index, piece in enumerate(list(self.said[number])):
                twin.sendall(piece)
                with contextlib.suppress(TimeoutError):
                    if index < _TURNS:
                        twin.recv(65536)
        return twin

    def inject(self, number: int, data: bytes) -> None:
        """Say something to the server in the name of client `number`, which is connected."""
        self._open[2 * number + 1].sendall(data)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except ConnectionRefusedError:
                    client.close()
                    continue
                kept: list[bytes] = []
                self.said.append(kept)
                self._open += [client, server]
                for source, sink, keep in ((client, server, kept), (server, client, [])):
                    thread = threading.Thread(target=self._pump, args=(source, sink, keep))
                    self._threads.append(thread)
                    thread.start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, keep: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                keep.append(data)
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
