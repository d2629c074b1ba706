"""Sessions of console clients: which connections are theirs, which tasks they answer for.

A session is alive as long as any of its connections is heard within the lease; what happens at
its end is the console's business. Every table is bounded. A task belongs to the session that
spawned it, a child of fork to the session of its parent, a detached task to nobody.
"""

import errno
from collections import Counter
from dataclasses import dataclass, field

from xpmem_emu.client.wire import Hello
from xpmem_emu.errors import KernelError

CONNECTIONS_MAX = 256
SESSIONS_OF_KEY_MAX = 64
CONNECTIONS_OF_KEY_MAX = 256
SUBSCRIPTIONS_MAX = 16


@dataclass(slots=True, eq=False)
class ConsoleSession:
    """One client. `outstanding` counts its calls that the kernel has not answered. `key` is the
    public key that it came with; empty: it needed none."""

    name: str
    client: str
    heard_ns: int
    key: str = ""
    connections: set[bytes] = field(default_factory=set)
    tasks: set[int] = field(default_factory=set)
    subscriptions: set[tuple[bytes, int]] = field(default_factory=set)
    outstanding: int = 0
    ended: bool = False


class ConsoleSessions:
    """The sessions of one partition."""

    def __init__(self, lease_ns: int, most: int) -> None:
        self._lease_ns = lease_ns
        self._most = most
        self._by_name: dict[str, ConsoleSession] = {}
        self._by_connection: dict[bytes, ConsoleSession] = {}
        self._owners: dict[int, ConsoleSession] = {}
        self.calls: Counter[str] = Counter()
        """Calls that the kernel has not answered, by key; those that came without one are counted
        by their session alone."""

    def hello(self, now_ns: int, connection: bytes, hello: Hello, key: str = "") -> ConsoleSession:
        """The session that `connection` belongs to from now on. Raises KernelError: EUSERS when
        a table is full, EISCONN when the connection is another session's, EACCES when the session
        is of another key."""
        session = self._by_name.get(hello.session)
        if session is not None and session.key != key:
            raise KernelError(errno.EACCES, "this session is of another key")
        if self._by_connection.get(connection, session) is not session:
            raise KernelError(errno.EISCONN, "this connection is of another session")
        if session is None:
            if len(self._by_name) >= self._most:
                raise KernelError(
                    errno.EUSERS,
                    f"{self._most} clients are connected already",
                    "close some, or give the partition more open files (ulimit -n)",
                )
            if key and len(self._of_key(key)) >= SESSIONS_OF_KEY_MAX:
                raise KernelError(errno.EUSERS, f"{SESSIONS_OF_KEY_MAX} clients with this key")
            session = ConsoleSession(hello.session, hello.client, now_ns, key)
            self._by_name[session.name] = session
        if len(session.connections) >= CONNECTIONS_MAX:
            raise KernelError(errno.EUSERS, f"{CONNECTIONS_MAX} connections of one client")
        if key and sum(len(one.connections) for one in self._of_key(key)) >= CONNECTIONS_OF_KEY_MAX:
            raise KernelError(errno.EUSERS, f"{CONNECTIONS_OF_KEY_MAX} connections with this key")
        session.connections.add(connection)
        self._by_connection[connection] = session
        session.heard_ns = now_ns
        return session

    def subscriptions(self, session: ConsoleSession) -> int:
        """How many the client of a session has: with a key, all sessions of that key together."""
        of_client = self._of_key(session.key) if session.key else [session]
        return sum(len(one.subscriptions) for one in of_client)

    def _of_key(self, key: str) -> list[ConsoleSession]:
        return [one for one in self._by_name.values() if one.key == key]

    def heard(self, now_ns: int, connection: bytes, key: str = "") -> ConsoleSession | None:
        """The session of a connection that just spoke; None: it never said hello, its lease ran
        out, or it is a new connection of another key under an old one's name."""
        session = self._by_connection.get(connection)
        if session is None or session.key != key:
            return None
        session.heard_ns = now_ns
        return session

    def name_of(self, connection: bytes) -> object:
        """Whose connection it is, or the connection itself."""
        session = self._by_connection.get(connection)
        return connection if session is None else session.name

    def all(self) -> list[ConsoleSession]:
        """Every session."""
        return list(self._by_name.values())

    def silent(self, now_ns: int) -> list[ConsoleSession]:
        """Sessions whose lease ran out."""
        return [one for one in self._by_name.values() if now_ns - one.heard_ns > self._lease_ns]

    def forgive(self, now_ns: int) -> None:
        """Every lease starts anew: it was us who did not listen."""
        for session in self._by_name.values():
            session.heard_ns = now_ns

    def end(self, session: ConsoleSession) -> list[int]:
        """Forget a session. Result: pids of the tasks that it leaves behind."""
        session.ended = True
        del self._by_name[session.name]
        for connection in session.connections:
            del self._by_connection[connection]
        return [pid for pid in sorted(session.tasks) if self.disown(pid) is session]

    def own(self, pid: int, session: ConsoleSession) -> None:
        """Task `pid` was just made for `session`."""
        self.disown(pid)
        self._owners[pid] = session
        session.tasks.add(pid)

    def owner(self, pid: int) -> ConsoleSession | None:
        """Whose task it is."""
        return self._owners.get(pid)

    def disown(self, pid: int) -> ConsoleSession | None:
        """Task `pid` is nobody's any more, or gone. Result: whose it was."""
        session = self._owners.pop(pid, None)
        if session is not None:
            session.tasks.discard(pid)
        return session
