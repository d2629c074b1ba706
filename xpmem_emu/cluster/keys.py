"""The key folder: whose keys are let in, and the private halves that are kept on this machine.

    DIR/allow.json                the allow-list: public keys, who each one is, the revoked ones
    DIR/private/NAME.key_secret   CURVE certificates as `zmq.auth` writes them, 0600 in 0700

One key belongs to one partition or to one client. The allow-list is the only place that says what
a key may do; running partitions read it again when it changes. This module changes files and
knows no socket. Nothing here is ever overwritten: a list is replaced whole by renaming, a private
half is made exclusively. A private half that others may read is refused like a wrong one.
"""

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import zmq
from msgspec import Meta, Struct

from xpmem_emu.cluster.paths import KEY_VARIABLE
from xpmem_emu.errors import KernelError
from xpmem_emu.fields import Partid

ALLOW_FILE = "allow.json"
PRIVATE_FOLDER = "private"
KEYS_MAX = 4096
"""Keys of one allow-list, and as many revoked ones."""

_MAKE_KEYS = "xpmem-emu keys init --topology NAME|FILE, or xpmem-emu keys new NAME"

KeyName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Z85Key = Annotated[str, Meta(min_length=40, max_length=40)]
Id = Annotated[int, Meta(ge=0, lt=1 << 32)]


class Capability(StrEnum):
    """What a client may do; each includes those before it."""

    LOOK = "look"
    """Observe: tables, descriptions, events."""
    USE = "use"
    """Spawn tasks of the key's own uid and make their calls."""
    OPERATE = "operate"
    """Everything: tasks of any uid, files, the VM, faults, failpoints, shutdown."""

    def covers(self, needed: "Capability") -> bool:
        """Whether who may do this may do what takes `needed`."""
        order = list(Capability)
        return order.index(self) >= order.index(needed)


class Peer(Struct, frozen=True, forbid_unknown_fields=True, tag="peer", tag_field="is"):
    """The key of a partition."""

    partid: Partid


class Client(Struct, frozen=True, forbid_unknown_fields=True, tag="client", tag_field="is"):
    """The key of a person or a program. Simulated tasks run as `uid` and `gids`."""

    uid: Id
    gids: Annotated[list[Id], Meta(max_length=64)]
    capability: Capability


class Key(Struct, frozen=True, forbid_unknown_fields=True):
    """A public key and who proves with it who they are."""

    name: KeyName
    public: Z85Key
    role: Peer | Client


class AllowList(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is let in. Names, public keys and partids of `keys` are distinct; a revoked public key
    is never in `keys`, but its name may be."""

    keys: Annotated[list[Key], Meta(max_length=KEYS_MAX)] = []
    revoked: Annotated[list[Key], Meta(max_length=KEYS_MAX)] = []

    def __post_init__(self) -> None:
        """Raises ValueError, which says what there is twice."""
        _require_distinct("name", [key.name for key in self.keys])
        _require_distinct("public key", [key.public for key in (*self.keys, *self.revoked)])
        partids = [key.role.partid for key in self.keys if isinstance(key.role, Peer)]
        _require_distinct("partid", partids)

    def named(self, name: str) -> Key | None:
        """The key of that name, unless it was revoked."""
        return next((key for key in self.keys if key.name == name), None)

    def partition(self, partid: int) -> Key | None:
        """The key of that partition, unless it was revoked."""
        return next((key for key in self.keys if key.role == Peer(partid)), None)


@dataclass(frozen=True, slots=True)
class Pair:
    """Both halves of a key, in Z85."""

    public: bytes
    secret: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is shown at one endpoint: our own key, and the one that who listens must have."""

    pair: Pair
    server: bytes

    def show(self, socket: zmq.Socket[bytes]) -> None:
        """To be called before `socket` connects."""
        socket.curve_publickey, socket.curve_secretkey = self.pair.public, self.pair.secret
        socket.curve_serverkey = self.server


class KeyFolder:
    """The keys in one folder, which need not exist before the first is made."""

    def __init__(self, path: Path | str) -> None:
        self.path = path = Path(path)
        self.allow_path = path / ALLOW_FILE
        self._private = path / PRIVATE_FOLDER

    def read(self) -> AllowList:
        """The allow-list. Raises KernelError ENOENT, EINVAL, EPERM."""
        try:
            _require_private(self.allow_path, others_may=0o055)
            return msgspec.json.decode(self.allow_path.read_bytes(), type=AllowList)
        except FileNotFoundError:
            raise KernelError(
                errno.ENOENT, f"{self.path} has no keys: there is no {ALLOW_FILE} in it", _MAKE_KEYS
            ) from None
        except OSError as error:
            raise _unreadable(self.allow_path, error) from None
        except msgspec.DecodeError as error:
            raise KernelError(
                errno.EINVAL, f"{self.allow_path}: {error}", "restore it from where you copied it"
            ) from None

    def private_names(self) -> list[str]:
        """Whose private halves are here."""
        return sorted(path.stem for path in self._private.glob("*.key_secret"))

    def pair(self, name: str) -> Pair:
        """Both halves of a key. Raises KernelError: ENOKEY when its private half is not here,
        EPERM when others may read it, EINVAL when it is none."""
        path = self._secret_path(name)
        try:
            _require_private(self._private)
            _require_private(path)
            from zmq import auth

            public, secret = auth.load_certificate(path)
        except FileNotFoundError:
            here = ", ".join(self.private_names()) or "none"
            raise KernelError(
                errno.ENOKEY,
                f"{path.parent} has no private key of {name}; it has: {here}",
                f"xpmem-emu keys new {name}, or copy {path.name} here",
            ) from None
        except OSError as error:
            raise _unreadable(path, error) from None
        except ValueError:
            secret = None
        if secret is None or len(secret) != len(public) != 40:
            raise KernelError(errno.EINVAL, f"{path} is no private key", "restore or revoke it")
        return Pair(public, secret)

    def pair_of(self, partid: int) -> Pair:
        """Both halves of a partition's own key. Raises KernelError as `pair` does; ENOKEY when
        the allow-list has none."""
        key = self.read().partition(partid)
        if key is None:
            raise KernelError(
                errno.ENOKEY,
                f"{self.allow_path} has no key of partition {partid}",
                f"xpmem-emu keys new NAME --partition {partid}",
            )
        pair = self.pair(key.name)
        if pair.public.decode() != key.public:
            raise KernelError(
                errno.EKEYREJECTED,
                f"{self._secret_path(key.name)} is not the key of {key.name} that {ALLOW_FILE} has",
                "copy both files from where the key was made",
            )
        return pair

    def client(self, name: str, partition: str) -> Credentials:
        """What the client `name` shows at the console of `partition`; empty `name`: the only
        client whose private half is here. Raises KernelError ENOKEY."""
        allow = self.read()
        server = allow.named(partition)
        if server is None or not isinstance(server.role, Peer):
            raise KernelError(
                errno.ENOKEY,
                f"{self.allow_path} has no key of partition {partition}",
                "xpmem-emu keys ls",
            )
        return Credentials(self.pair(name or self._only_client(allow)), server.public.encode())

    def make(self, wanted: Mapping[str, Peer | Client]) -> list[Key]:
        """New keys by name, all or none in the list. Raises KernelError EEXIST when there is one
        of that name or partition already, EINVAL for what is no name."""
        with self._locked() as before:
            for name, role in wanted.items():
                _require_free(before, name, role)
            return self._add(before, wanted)

    def complete(self, wanted: Mapping[str, Peer | Client]) -> list[Key]:
        """Make those keys of `wanted` that there are none of yet. Raises KernelError EEXIST when
        a name or partition there is means somebody else."""
        with self._locked() as before:
            missing = {}
            for name, role in wanted.items():
                same = before.named(name)
                if same is None or not _same_owner(same.role, role):
                    _require_free(before, name, role)
                    missing[name] = role
            return self._add(before, missing)

    def split(self, folder: Path) -> list[str]:
        """Move the private half of each partition to `folder`/NAME, which may be a volume of its
        own, so that who runs a partition need not be shown any other key. Result: whose. Raises
        KernelError."""
        with self._locked() as now:
            peers = {key.name for key in now.keys if isinstance(key.role, Peer)}
            names = sorted(peers & set(self.private_names()))
            for name in names:
                try:
                    _move_private(self._secret_path(name), folder / name)
                except OSError as error:
                    raise _unreadable(folder / name, error) from None
            return names

    def revoke(self, name: str) -> Key:
        """The key is let in nowhere any more, and its private half here is removed. Raises
        KernelError ENOENT."""
        with self._locked() as before:
            key = before.named(name)
            if key is None:
                names = ", ".join(one.name for one in before.keys) or "none"
                raise KernelError(
                    errno.ENOENT,
                    f"{self.path} has no key of {name}; it has: {names}",
                    "xpmem-emu keys ls",
                )
            keys = [one for one in before.keys if one is not key]
            self._write(AllowList(keys, [*before.revoked, key]))
            self._secret_path(name).unlink(missing_ok=True)
            return key

    def _only_client(self, allow: AllowList) -> str:
        """Raises KernelError ENOKEY when there is none, or a choice."""
        partitions = {key.name for key in allow.keys if isinstance(key.role, Peer)}
        mine = [name for name in self.private_names() if name not in partitions]
        if len(mine) != 1:
            raise KernelError(
                errno.ENOKEY,
                f"{self._private} has private keys of "
                f"{len(mine)} clients: {', '.join(mine) or 'none'}",
                f"set {KEY_VARIABLE} to the name of yours",
            )
        return mine[0]

    # -- files -----------------------------------------------------------------------------

    def _secret_path(self, name: str) -> Path:
        return self._private / f"{name}.key_secret"

    def _add(self, before: AllowList, wanted: Mapping[str, Peer | Client]) -> list[Key]:
        keys = [self._made(name, role) for name, role in wanted.items()]
        if keys:
            self._write(AllowList([*before.keys, *keys], before.revoked))
        return keys

    def _made(self, name: str, role: Peer | Client) -> Key:
        """A key with its private half on disk. One that a crash left without an entry is used."""
        import tempfile

        from zmq import auth

        with tempfile.TemporaryDirectory(dir=self._private) as folder:
            # Made where nobody else can look, then linked: never an instant with loose rights.
            _, draft = auth.create_certificates(folder, name)
            os.chmod(draft, 0o600)
            with suppress(FileExistsError):
                os.link(draft, self._secret_path(name))
        return Key(name, self.pair(name).public.decode(), role)

    def _write(self, allow: AllowList) -> None:
        if max(len(allow.keys), len(allow.revoked)) > KEYS_MAX:
            raise KernelError(
                errno.ENOSPC,
                f"{self.allow_path} holds {KEYS_MAX} keys and as many revoked ones",
                "make a new folder of keys",
            )
        draft = self.allow_path.with_suffix(".new")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(allow)) + b"\n")
        draft.chmod(0o644)
        draft.replace(self.allow_path)

    @contextmanager
    def _locked(self) -> Iterator[AllowList]:
        """Hold the right to change the folder, made if need be; yields what is in it now."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_private(self.path, others_may=0o055)
            self._private.mkdir(mode=0o700, exist_ok=True)
            _require_private(self._private)
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _unreadable(self.path, error) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield self.read() if self.allow_path.exists() else AllowList()
        finally:
            os.close(fd)


def _move_private(path: Path, folder: Path) -> None:
    """`folder` may be on another file system. Raises KernelError, OSError."""
    import tempfile

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_private(folder)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as draft:
        draft.write(path.read_bytes())
    Path(draft.name).replace(folder / path.name)
    path.unlink()


def _require_free(before: AllowList, name: str, role: Peer | Client) -> None:
    try:
        msgspec.convert(name, KeyName)
    except msgspec.ValidationError:
        raise KernelError(
            errno.EINVAL,
            f"{name!r} is no name of a key",
            "letters, digits, dots, dashes and underscores, at most 64",
        ) from None
    same = before.named(name)
    if same is None and isinstance(role, Peer):
        same = before.partition(role.partid)
    if same is not None:
        raise KernelError(
            errno.EEXIST,
            f"there is a key of {key_text(same)} already",
            f"another name, or `xpmem-emu keys revoke {same.name}` first",
        )


def _same_owner(one: Peer | Client, other: Peer | Client) -> bool:
    """The same partition, or two clients: what a client may do can differ."""
    return one == other if isinstance(one, Peer) else isinstance(other, Client)


def key_text(key: Key) -> str:
    """Who that is, for people."""
    if isinstance(key.role, Peer):
        return f"{key.name} (partition {key.role.partid})"
    return f"{key.name} (uid {key.role.uid}, may {key.role.capability})"


def _require_distinct(what: str, values: list[str] | list[int]) -> None:
    seen: set[str | int] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} {value} is there twice")
        seen.add(value)


def _require_private(path: Path, others_may: int = 0) -> None:
    """Raises KernelError EPERM unless `path` is ours (or root's) and lets others do at most what
    the mode `others_may` says; FileNotFoundError."""
    facts = path.stat()
    if facts.st_uid not in (os.geteuid(), 0):
        raise KernelError(
            errno.EPERM, f"{path} belongs to uid {facts.st_uid}", f"chown {os.geteuid()} {path}"
        )
    if facts.st_mode & 0o077 & ~others_may:
        raise KernelError(
            errno.EPERM,
            f"others may use {path} (mode {facts.st_mode & 0o777:04o})",
            f"chmod go-rwx {path}; if others had the time to read a private key, revoke it",
        )


def _unreadable(path: Path, error: OSError) -> KernelError:
    return KernelError(
        error.errno or errno.EIO, f"{path}: {error.strerror}", "name a folder of yours"
    )
