"""What a partition logs: lines of JSON that say who, when and how bad."""

import json
from collections.abc import Iterator
from datetime import datetime

import pytest

from xpmem_emu.live import log


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    log.begin({}, "info")


def test_a_line_is_one_object_with_its_place_its_facts_and_its_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.begin({"partition": "p0", "pid": 7}, "info")
    log.info("boot", console="ipc:///x\ny")
    out, line = capsys.readouterr()
    assert out == ""
    assert line.count("\n") == 1
    told = json.loads(line)
    when = datetime.fromisoformat(told.pop("timestamp"))
    assert abs((datetime.now(when.tzinfo) - when).total_seconds()) < 60
    assert told == {
        "partition": "p0",
        "pid": 7,
        "console": "ipc:///x\ny",
        "event": "boot",
        "level": "info",
    }


def test_what_matters_less_than_wanted_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    log.begin({}, "warning")
    for write in (log.debug, log.info, log.warning, log.error):
        write("something")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["level"] for line in lines] == ["warning", "error"]


def test_a_value_that_json_has_no_word_for_is_told_as_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.error("refused", why=OSError(2, "gone"))
    assert json.loads(capsys.readouterr().err)["why"] == "[Errno 2] gone"
