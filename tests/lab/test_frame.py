"""Experiments as they are found, run, told and written down."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.fake import FakeEmulator
from xpmem_emu.cli.main import cli, run_command
from xpmem_emu.errors import KernelError
from xpmem_emu.lab import plots
from xpmem_emu.lab.experiment import Curves, LabRow, Setting
from xpmem_emu.lab.plots import svg_plot, text_plot
from xpmem_emu.lab.registry import all_experiments, experiment_names, find_experiment
from xpmem_emu.lab.report import renewed_page, report_section, section_of
from xpmem_emu.lab.running import measured_cases
from xpmem_emu.lab.tables import markdown_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "lab.md"
SMALL = Setting(percent=1)
ROWS: list[LabRow] = [
    {"areas": 1000, "design": "a", "took_ns": 2500},
    {"areas": 10, "design": "a", "took_ns": 90},
    {"areas": 10, "design": "b", "took_ns": 7},
]


def said(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_command(arguments, FakeEmulator().session())
    out, err = capfd.readouterr()
    return code, out, err


def test_every_experiment_has_all_that_the_report_needs_and_a_place_of_its_own() -> None:
    places = []
    for name, each in all_experiments().items():
        places.append(each.place)
        assert each.question.endswith("?"), name
        assert each.setup.endswith("."), name
        assert re.search(r"sources T\d", each.claim), name
        assert 2 <= len(each.cases(Setting())) <= 200, name
    assert places == sorted(set(places))


def test_rows_are_the_same_again_and_on_several_processes() -> None:
    setting = Setting(seed=3, percent=1)
    once = list(measured_cases("mm-lock", setting, 1))
    assert once == list(measured_cases("mm-lock", setting, 2))
    assert once != list(measured_cases("mm-lock", Setting(seed=4, percent=1), 1))


def test_an_experiment_is_told_as_one_document(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capfd, "lab", "run", "mm-lock", "--size", "1", "-o", "json")
    told = json.loads(out)
    assert code == 0
    assert told["schema"] == "xpmem-emu/experiment/v1"
    assert told["rows"][0]["design"] == "sorted array"
    assert told["word"] == "both sides have a point"


def test_an_experiment_is_told_to_people(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capfd, "lab", "run", "mm-lock", "--size", "1")
    assert code == 0
    assert find_experiment("mm-lock").question in out
    assert "SUBSCRIBED" in out
    assert "sources T8" in out


def test_all_of_them_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capfd, "lab", "ls", "-o", "json")
    assert code == 0
    assert {each["name"] for each in json.loads(out)["items"]} == set(experiment_names())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "mm-luck"], "there is no experiment 'mm-luck'; try: one of "),
        (["report", "--only", "mm-luck"], "there is no experiment 'mm-luck'; try: one of "),
        (["run", "mm-lock", "--size", "0"], "0 is not in the range 1<=x<=100"),
        (["run", "mm-lock", "--image", "costly.toml"], "costly.toml: machine.lock: -1ns is below"),
        (["run", "mm-lock", "--image", "vast.toml"], "vast.toml: machine.processors: Expected"),
    ],
)
def test_bad_input_is_one_line_with_a_remedy(
    arguments: list[str],
    told: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("costly.toml").write_text('[machine]\nlock = "-1ns"\n')
    Path("vast.toml").write_text("[machine]\nprocessors = 65\n")
    code, out, err = said(capfd, "lab", *arguments)
    assert code != 0
    assert out == ""
    assert told in err
    assert "; try: " in err
    assert len(err.splitlines()) == 1
    assert not Path("docs").exists()


def test_costs_are_those_of_the_image(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dear = tmp_path / "dear.toml"
    dear.write_text('[machine]\nwalk = "10us"\n')
    line = ["lab", "run", "mm-lock", "--size", "1", "-o", "json"]
    _, cheap, _ = said(capfd, *line)
    _, out, _ = said(capfd, *line, "--image", str(dear))
    assert json.loads(out)["rows"][0]["subscribed_ns"] > 10_000 * 10
    assert json.loads(cheap)["rows"][0]["subscribed_ns"] < 10_000 * 10


def test_a_report_renews_the_sections_that_it_ran(tmp_path: Path) -> None:
    experiment = find_experiment("mm-lock")
    section = report_section("mm-lock", experiment, list(measured_cases("mm-lock", SMALL, 1)))
    other = "<!-- other: begin -->\nkept\n<!-- other: end -->\n"
    gone = "<!-- gone: begin -->\nx\n<!-- gone: end -->\n"
    old = "<!-- mm-lock: begin -->\nolder\n<!-- mm-lock: end -->\n"
    page = renewed_page(gone + other + old, ["mm-lock", "other"], {"mm-lock": section})
    assert section_of(page, "mm-lock") == section
    assert section_of(page, "other") == other
    assert "older" not in page
    assert "gone" not in page
    assert page.index("mm-lock: begin") < page.index("other: begin")
    assert page == renewed_page(page, ["mm-lock", "other"], {"mm-lock": section})


def test_the_page_has_each_experiment_once_as_it_is_declared() -> None:
    page = PAGE.read_text()
    for name, each in all_experiments().items():
        section = section_of(page, name)
        assert each.question in section, f"xpmem-emu lab report --only {name}"
        assert each.setup in section, f"xpmem-emu lab report --only {name}"
        assert page.count(f"<!-- {name}: begin -->") == 1
        plot = PAGE.parent / "lab" / f"{name}.svg"
        assert plot.exists() == (each.curves is not None)


def test_a_table_has_units_and_numbers_to_the_right() -> None:
    assert markdown_table(ROWS) == (
        "| areas | design | took |\n"
        "| ---: | --- | ---: |\n"
        "| 1,000 | a | 2.5us |\n"
        "| 10 | a | 90ns |\n"
        "| 10 | b | 7ns |\n"
    )


def test_lines_of_a_plot_go_from_left_to_right_and_only_where_they_are_meant() -> None:
    every = Curves("areas", "took_ns", "design")
    assert every.lines(ROWS) == {"a": ([10, 1000], [90, 2500]), "b": ([10], [7])}
    some = Curves("areas", "took_ns", "design", only={"areas": 10})
    assert some.lines(ROWS) == {"a": ([10], [90]), "b": ([10], [7])}


def test_bars_stand_side_by_side_above_words() -> None:
    bars = Curves("design", "took_ns", "areas")
    assert bars.of_words(ROWS)
    assert bars.bars(ROWS) == (["a", "b"], {"1000": [2500, 0], "10": [90, 7]})


@pytest.mark.parametrize("program", ["matplotlib.figure", "plotext"])
def test_without_the_extra_a_plot_says_how_to_get_it(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str) -> None:
        raise ImportError(module)

    monkeypatch.setattr(plots, "import_module", missing)
    curves = Curves("areas", "took_ns", "design")
    with pytest.raises(KernelError) as refused:
        svg_plot(curves, ROWS) if "." in program else text_plot(curves, ROWS, 80, 20)
    assert f"plots need {program.partition('.')[0]}" in refused.value.cause
    assert "-m pip install 'matplotlib" in refused.value.remedy


def test_the_group_shows_its_help_without_the_simulator() -> None:
    assert "ls" in CliRunner().invoke(cli, ["lab", "--help"]).output


def test_an_experiment_that_is_run_again_has_the_table_of_the_page() -> None:
    rows = list(measured_cases("bte-timeout", Setting(), 1))
    assert report_section("bte-timeout", find_experiment("bte-timeout"), rows) == section_of(
        PAGE.read_text(), "bte-timeout"
    )
