"""Folders of clusters, made and removed by many at once."""

import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xpmem_emu.cluster.paths import arena_folder, make_own_folder, remove_own_folder
from xpmem_emu.cluster.state import locked
from xpmem_emu.errors import KernelError

Refusal = Callable[..., KernelError]


def test_the_root_goes_with_the_last_folder_in_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("a", "b"):
        make_own_folder(root / name)
        (root / name / "file").touch()
    remove_own_folder(root / "a")
    assert [each.name for each in root.iterdir()] == ["b"]
    for _ in range(2):
        remove_own_folder(root / "b")
        assert not root.exists()


def test_a_root_of_arenas_that_somebody_named_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XPMEM_EMU_ARENAS", str(tmp_path / "mine"))
    make_own_folder(arena_folder("c"))
    remove_own_folder(arena_folder("c"))
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_root_that_goes_while_a_folder_is_made_in_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mkdir = tmp_path / "root" / "cluster", Path.mkdir
    gone: list[Path] = []

    def overtaken(
        path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False
    ) -> None:
        if path == folder and not gone:
            path.parent.rmdir()
            gone.append(path)
        mkdir(path, mode, parents, exist_ok)

    monkeypatch.setattr(Path, "mkdir", overtaken)
    make_own_folder(folder)
    assert gone == [folder]
    assert {each.stat().st_mode & 0o777 for each in (folder, folder.parent)} == {0o700}


def test_a_root_that_cannot_be_made_is_a_refusal(refusal: Refusal) -> None:
    assert refusal(make_own_folder, Path("/proc/nobody/cluster")).errno == errno.ENOENT


@pytest.mark.parametrize("names", ["abcd", "aaaa"], ids=["four clusters", "one cluster"])
def test_who_makes_and_who_removes_clusters_at_once_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def up_and_down(name: str) -> None:
        for _ in range(50):
            with locked(name) as folder:
                (folder / "file").touch(exist_ok=False)
                remove_own_folder(folder)

    with ThreadPoolExecutor(len(names)) as threads:
        for done in [threads.submit(up_and_down, name) for name in names]:
            done.result()
    assert list(tmp_path.iterdir()) == []
