"""Broken scenario files: each is refused with the file, the place, the cause and a remedy."""

from pathlib import Path

import pytest

from tests.scenario.conftest import SHARED, on_sim, written
from xpmem_emu.errors import KernelError
from xpmem_emu.image import Image, image_text, read_image
from xpmem_emu.scenario.story import IsSwarm, read_story
from xpmem_emu.shipped import find_toml

PATIENT = read_image(find_toml("images", "patient").read_text())
HEAD = 'name = "told"\ntitle = "t"\nshows = ""\n'

FILES = {
    "not TOML": ("name = ", "not TOML"),
    "no story": (HEAD, "Object missing required field `story`"),
    "no name": ('title = "t"\nshows = ""\n[story]', "missing required field `name`"),
    "a bad name": (HEAD.replace("told", "Told it") + "[story]", "name: "),
    "an unknown key": (HEAD + 'tilte = "x"\n[story]', "tilte: no such key; try: title"),
    "an unknown phase": (HEAD + '[story]\nsetpu = ""', "story.setpu: no such key; try: setup"),
    "an unknown cluster key": (
        HEAD + "[cluster]\npartition = 2\n[story]",
        "cluster.partition: no such key; try: partition",
    ),
    "too many partitions": (HEAD + "[cluster]\npartitions = 99\n[story]", "cluster.partitions: "),
    "too few domains": (HEAD + '[cluster]\ndomains = ["A"]\n[story]', "cluster.domains: 1 for 2"),
    "a wrong time": (HEAD + '[cluster]\npatience = "soon"\n[story]', "cluster.patience: "),
    "a wrong override": (
        HEAD + "[cluster]\noverride = { xpc = { slosts = 3 } }\n[story]",
        "cluster.override.xpc",
    ),
    "an unknown image": (HEAD + '[cluster]\nimage = "phone"\n[story]', "there is no 'phone'"),
}

LINES = {
    "exporter mmep 8p": "no call is named 'mmep'; try: mmap",
    "exprter mmap 8p": "nothing is called exprter; try: exporter",
    "exporter mmap 8p length=4p": "mmap takes no 'length'; try: mmap length prot",
    "exporter mmap": "mmap needs length",
    "exporter mmap 8q": "'8q' is no value; try: such as 4096",
    "exporter mmap memry": "nothing is called memry; try: memory",
    "exporter mmap 4p PROT_RAED": "nothing is called PROT_RAED",
    "exporter store memory hello": "store needs the text to write",
    'exporter store memory "hello': "a quote is not closed",
    "p0 mmap 4p": "mmap is done by a task; try: TASK mmap",
    "exporter spawn": "spawn is done by a partition; try: p0 spawn",
    "p7 spawn": "spawn is done by a partition; try: p0 spawn",
    "exporter load memory 8 => ENOTN": "'ENOTN' is no outcome; try: ",
    "exporter load memory 8 =>": "nothing is expected",
    "begin exporter load memory 8": "a call that is begun has a name",
    "await nothing": "nothing is called nothing",
    "await touch soon": "'soon' does not belong here",
    "PROT_READ = p0 spawn": "'PROT_READ' cannot be a name",
    "wait event xpmem:fault_begun on p0": "no event is called 'xpmem:fault_begun'; try: xpmem",
    "wait event xpmem:pin on p0 page=1": "xpmem:pin has no page; try: pages",
    "wait for better days": "'for better days' is no condition",
    "wait pins on p0 = 8": "'= 8' is no comparison",
    "wait p0 sees p1 ACTVE": "no state is called 'ACTVE'; try: ACTIVE",
    "wait pins on p0 == 8 within now": "'now' is not a time",
    "crash p9": "there is no partition p9",
    "explode p0": "no call is named 'p0'",
    "fault holt --match type=FAULT": "no fault is called 'holt'",
    "fault poison p0 {frme}": "nothing is called frme",
    "random sahring 80": "no workload is called 'sahring'; try: sharing",
    "random sharing none": "'none' operations; try: 1 to",
    "nonsense": "'nonsense' is no step",
}


@pytest.mark.parametrize(("text", "says"), FILES.values(), ids=list(FILES))
def test_a_broken_file_is_refused_with_the_place_and_the_cause(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(KernelError) as refused:
        read_story(path)
    error = refused.value
    assert says in f"{error.cause}; try: {error.remedy}"
    assert error.remedy


@pytest.mark.parametrize(("line", "says"), LINES.items(), ids=list(LINES))
def test_a_broken_step_is_refused_with_its_line(tmp_path: Path, line: str, says: str) -> None:
    path = written(
        tmp_path, setup=SHARED, load=f"# a comment\ntouch = begin importer load at 8\n{line}"
    )
    with pytest.raises(KernelError) as refused:
        read_story(path)
    error = refused.value
    number = path.read_text().splitlines().index(line) + 1
    assert f"{path}: line {number}, load: " in error.cause
    assert says in f"{error.cause}; try: {error.remedy}"


def test_a_swarm_is_told_apart() -> None:
    with pytest.raises(IsSwarm) as refused:
        read_story(find_toml("scenarios", "chaos"))
    assert "xpmem-emu sim run" in refused.value.remedy


def test_an_image_survives_being_written_as_toml() -> None:
    image = read_image(find_toml("images", "altix").read_text())
    assert read_image(image_text(image)) == image
    assert read_image(image_text(Image())) == Image()


def test_overrides_are_of_this_story_only(tmp_path: Path) -> None:
    path = written(tmp_path, '[cluster]\nmemory = "8M"\noverride = { xpc = { slots = 3 } }')
    image = read_story(path).image
    assert (image.memory.size, image.xpc.slots) == (8 << 20, 3)
    assert image.xpc.heartbeat_check == PATIENT.xpc.heartbeat_check


def test_a_story_boots_the_image_that_gives_nobody_up_too_early(tmp_path: Path) -> None:
    assert read_story(written(tmp_path)).image.deadlines == PATIENT.deadlines
    laptop = read_story(written(tmp_path, '[cluster]\nimage = "laptop"')).image
    assert laptop.deadlines == Image().deadlines


def test_the_example_of_the_reference_is_true(tmp_path: Path) -> None:
    reference = Path(__file__).parents[2] / "docs" / "scenarios.md"
    example = reference.read_text().partition("```toml\n")[2].partition("```")[0]
    path = tmp_path / "example.toml"
    path.write_text(example)
    assert on_sim(read_story(path)).judgement.findings == []
