"""One command line after the other, against a fake cluster, in this process."""

from dataclasses import dataclass

import pytest

from xpmem_emu.cli.main import run_command

from .fake import FakeEmulator


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str
    raw: bytes


class Shell:
    """Runs commands; `ok` expects success and gives stdout without its newline."""

    def __init__(self, emulator: FakeEmulator, capture: pytest.CaptureFixture[bytes]) -> None:
        self.emulator = emulator
        self._capture = capture

    def __call__(self, *arguments: str) -> Outcome:
        self._capture.readouterr()
        code = run_command(arguments, self.emulator.session())
        said = self._capture.readouterr()
        return Outcome(code, said.out.decode(errors="replace"), said.err.decode(), said.out)

    def ok(self, *arguments: str) -> str:
        outcome = self(*arguments)
        assert outcome.code == 0, outcome.err
        return outcome.out.rstrip("\n")


@pytest.fixture
def shell(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.delenv("XPMEM_EMU_CLUSTER", raising=False)
    return Shell(FakeEmulator(), capfdbinary)
