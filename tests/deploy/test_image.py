"""What the container image is made from: one base image, which whoever builds can pin."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "partitions" / "Dockerfile").read_text()


def default_base() -> str:
    """The base image where nobody says which."""
    (found,) = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    return str(found)


def test_every_stage_is_made_from_the_image_that_the_argument_names() -> None:
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert stages == ["${BASE}"] * 3
    assert DOCKERFILE.index("ARG BASE=") < DOCKERFILE.index("FROM ")


def test_the_image_says_what_it_was_made_from() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    # An argument from before the first stage is known in a stage that declares it again.
    assert last.index("\nARG BASE\n") < last.index('image.base.name="${BASE}"')


def test_compose_passes_the_argument_on_and_has_the_same_default() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    arguments = services["keys"]["build"]["args"]
    assert arguments == {"BASE": f"${{XPMEM_EMU_BASE:-{default_base()}}}"}


def test_what_runs_the_tests_has_that_base_image_and_needs_nothing_from_elsewhere() -> None:
    scripts = {path.name: path.read_text() for path in (ROOT / ".ci").iterdir()}
    assert f"tag=${{1:-{default_base()}}}" in scripts["base-image"]
    assert f"\nFROM {default_base()}\n" in scripts["bare"]
    for name, text in scripts.items():
        outside = [line for line in text.splitlines() if "../" in line]
        assert outside == [], f"{name} reaches outside of the repository"
