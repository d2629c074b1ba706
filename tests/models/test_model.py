"""The model of the recall: holds as it is, fails once it is broken, and its checker is no liar.

Needs spin and gcc; `models/check` says how to get them when they are missing.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

CHECK = Path(__file__).resolve().parents[2] / "models" / "check"

CUT_SHORT = {
    "memory": "pan: reached -DMEMLIM bound\nWarning: Search not completed\n",
    "depth": "error: max search depth too small\n",
    "an error": "pan:1: invalid end state (at depth 7)\nWarning: Search not completed\n",
}
HOLDS = "State-vector 264 byte, depth reached 9, errors: 0\n"
UNREACHED = """
unreached in proctype Peer
\t/somewhere/recall.pml:125, state 12, "printf('\\t(lost)\\n')"
\t/somewhere/exporter.pml:54, state 51, "assert(!(quarantine[i]))"
"""


def run(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHECK), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """The checker as a module."""
    loader = SourceFileLoader("models_check", str(CHECK))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.needs("spin", "gcc")
def test_the_model_holds_and_every_broken_variant_fails_as_it_must() -> None:
    done = run("--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    held = re.findall(r"^(\w+).*?([\d,]+) .*\bholds$", done.stdout, re.MULTILINE)
    assert len(held) == 7, done.stdout
    failed = dict(re.findall(r"^([A-Z_]+) .* (\w+)$", done.stdout, re.MULTILINE))
    assert failed["NO_VALID_CHECK"] == "S1_no_stale_mapping"
    assert failed["NO_ACK_WAIT"] == failed["NO_FENCE"] == "S2_no_early_free"
    assert len(failed) == 10, done.stdout


@pytest.mark.slow
@pytest.mark.needs("spin", "gcc")
def test_without_the_valid_check_the_model_finds_the_race_that_started_it_all() -> None:
    done = run("--explain", "NO_VALID_CHECK")
    assert done.returncode == 0, done.stdout + done.stderr
    race = (
        "importer 0: FAULT 1",
        "exporter: FAULT_REPLY 1",
        "exporter: INVALIDATE 1",
        "importer 0: INVALIDATE 1 zaps frame 0",
        "importer 0: FAULT_REPLY 1 was crossed",
        "importer 0: maps frame 1",
        "violated: S",
    )
    places = [done.stdout.find(each) for each in race]
    assert -1 not in places, done.stdout
    assert places == sorted(places), done.stdout


@pytest.mark.slow
@pytest.mark.needs("spin", "gcc")
def test_a_switch_that_breaks_nothing_is_reported(check: ModuleType) -> None:
    bounds = (1, 1, 0, 0, 0, 1, 1, 3)
    harmless = check.Run("NO_SUCH_SWITCH", bounds, check.BROKEN, "S1_no_stale_mapping")
    verdict = check.verify(harmless)
    assert verdict.violated == ""
    assert not verdict.expected
    assert "UNEXPECTED: S1_no_stale_mapping" in check.row(verdict)


@pytest.mark.parametrize("why", CUT_SHORT)
def test_a_search_that_is_cut_short_proves_nothing(check: ModuleType, why: str) -> None:
    assert check.violation(HOLDS) == ""
    assert check.violation(CUT_SHORT[why] + HOLDS)


def test_situations_that_never_happened_are_noticed(check: ModuleType) -> None:
    assert list(check.situations(UNREACHED)) == [r"Peer state 12: \t(lost)\n"]


def test_missing_tools_are_named_with_the_remedy(tmp_path: Path) -> None:
    done = run("--quick", env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == 2
    assert "spin and gcc not found" in done.stderr
    assert "apt-get install spin gcc" in done.stderr


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    done = run("--explain", "NO_SUCH_SWITCH")
    assert done.returncode == 2
    assert "NO_VALID_CHECK" in done.stderr
