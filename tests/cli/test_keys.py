"""Keys on the command line: made once, shown, revoked; and tcp endpoints that insist on them."""

import json
import stat
from pathlib import Path

import pytest

from xpmem_emu.cluster.keys import KeyFolder

from .conftest import Shell

TCP = """
[[partition]]
name = "p0"
partid = 0
endpoint = "tcp://127.0.0.1:9"
[[partition]]
name = "b1"
partid = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("XPMEM_EMU_KEY", raising=False)
    monkeypatch.setenv("XPMEM_EMU_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XPMEM_EMU_ARENAS", str(tmp_path / "arenas"))
    (tmp_path / "tcp.toml").write_text(TCP)
    return tmp_path / "keys"


def listed(shell: Shell) -> list[dict[str, object]]:
    items: list[dict[str, object]] = json.loads(shell.ok("keys", "ls", "-o", "json"))["items"]
    return items


def test_init_makes_what_is_missing_and_nothing_else(
    shell: Shell, folder: Path, tmp_path: Path
) -> None:
    init = ["keys", "init", "--topology", str(tmp_path / "tcp.toml")]
    shell.ok(*init)
    first = listed(shell)
    assert [(row["name"], row["is"], row.get("partid")) for row in first] == [
        ("p0", "peer", 0),
        ("b1", "peer", 7),
        ("operator", "client", None),
    ]
    shell.ok(*init, "--client", "operator", "--client", "second")
    assert listed(shell)[:3] == first
    assert listed(shell)[3]["name"] == "second"


def test_split_gives_each_partition_a_folder_with_its_own_private_half(
    shell: Shell, folder: Path, tmp_path: Path
) -> None:
    each = tmp_path / "each"
    init = ["keys", "init", "--topology", str(tmp_path / "tcp.toml"), "--split", str(each)]
    shell.ok(*init)
    for _ in range(2):
        found = {path.name: [one.name for one in path.iterdir()] for path in each.iterdir()}
        assert found == {"p0": ["p0.key_secret"], "b1": ["b1.key_secret"]}
        assert KeyFolder(folder).private_names() == ["operator"]
        assert stat.S_IMODE((each / "p0" / "p0.key_secret").stat().st_mode) == 0o600
        shell.ok(*init)
    private = tmp_path / "p0" / "private"
    private.parent.mkdir(mode=0o700)
    (tmp_path / "p0" / "allow.json").write_bytes((folder / "allow.json").read_bytes())
    (each / "p0").rename(private)
    assert KeyFolder(tmp_path / "p0").pair_of(0).public
    (each / "b1").chmod(0o755)
    shell.ok("keys", "revoke", "b1")
    outcome = shell(*init)
    assert (outcome.code, f"chmod go-rwx {each / 'b1'}" in outcome.err) == (1, True)


def test_init_does_not_take_the_key_of_another_partition(
    shell: Shell, folder: Path, tmp_path: Path
) -> None:
    shell.ok("keys", "new", "p0", "--partition", "3")
    outcome = shell("keys", "init", "--topology", str(tmp_path / "tcp.toml"))
    assert outcome.code == 1
    assert "(EEXIST): there is a key of p0 (partition 3) already" in outcome.err


def test_private_halves_are_for_their_owner_only(shell: Shell, folder: Path) -> None:
    shell.ok("keys", "new", "alice", "--uid", "1000", "--gid", "4", "--gid", "5")
    private = folder / "private" / "alice.key_secret"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    (row,) = listed(shell)
    assert (row["uid"], row["gids"], row["may"], row["private"]) == (1000, [4, 5], "use", "here")
    secret = KeyFolder(folder).pair("alice").secret.decode()
    assert secret not in shell.ok("keys", "ls", "-o", "json")


def test_a_key_is_never_made_over_another(shell: Shell, folder: Path) -> None:
    shell.ok("keys", "new", "alice")
    before = (folder / "private" / "alice.key_secret").read_bytes()
    outcome = shell("keys", "new", "alice", "--capability", "operate")
    assert outcome.code == 1
    assert "(EEXIST)" in outcome.err
    assert (folder / "private" / "alice.key_secret").read_bytes() == before


def test_a_revoked_key_stays_on_record_and_its_name_is_free(shell: Shell, folder: Path) -> None:
    shell.ok("keys", "new", "alice")
    old = listed(shell)[0]["public"]
    shell.ok("keys", "revoke", "alice")
    assert not (folder / "private" / "alice.key_secret").exists()
    shell.ok("keys", "new", "alice")
    new, revoked = listed(shell)
    assert (new["state"], revoked["state"]) == ("live", "revoked")
    assert revoked["public"] == old != new["public"]
    outcome = shell("keys", "revoke", "bob")
    assert "(ENOENT)" in outcome.err
    assert "it has: alice" in outcome.err


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65])
def test_a_name_cannot_leave_the_folder(shell: Shell, folder: Path, name: str) -> None:
    outcome = shell("keys", "new", name)
    assert outcome.code == 1
    assert "(EINVAL)" in outcome.err
    assert list(folder.glob("private/*")) == []


def test_tcp_endpoints_without_keys_are_refused_before_anything_starts(
    shell: Shell, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XPMEM_EMU_KEYS")
    for command in (["up"], ["boot", "p0"]):
        outcome = shell(*command, "--topology", str(tmp_path / "tcp.toml"))
        assert outcome.code == 1
        assert "(EACCES): p0 would let in whoever reaches tcp://127.0.0.1:9" in outcome.err
        assert "--keys DIR" in outcome.err
        assert "--insecure" in outcome.err


def test_insecure_and_keys_exclude_each_other(shell: Shell, folder: Path, tmp_path: Path) -> None:
    outcome = shell("up", "--topology", str(tmp_path / "tcp.toml"), "--insecure")
    assert outcome.code == 64
    assert "XPMEM_EMU_KEYS" in outcome.err


def test_a_partition_without_its_private_key_does_not_boot(
    shell: Shell, folder: Path, tmp_path: Path
) -> None:
    boot = ["boot", "p0", "--topology", str(tmp_path / "tcp.toml")]
    assert "(ENOENT)" in shell(*boot).err
    shell.ok("keys", "init", "--topology", str(tmp_path / "tcp.toml"))
    private = folder / "private" / "p0.key_secret"
    private.chmod(0o640)
    assert "(EPERM): others may use" in shell(*boot).err
    private.unlink()
    assert "(ENOKEY)" in shell(*boot).err


def test_doctor_says_when_others_may_read_private_keys(shell: Shell, folder: Path) -> None:
    shell.ok("keys", "new", "alice")
    assert health(shell)["health"] == "good"
    (folder / "private" / "alice.key_secret").chmod(0o644)
    finding = health(shell)
    assert finding["health"] == "bad"
    assert "chmod" in str(finding["remedy"])


def health(shell: Shell) -> dict[str, object]:
    findings = json.loads(shell("doctor", "-o", "json").out)["items"]
    return next(row for row in findings if row["check"] == "keys")
