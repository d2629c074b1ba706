"""Two or three simulated partitions, and the demand that a test leaves nothing behind."""

import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from msgspec.structs import replace

from tests.clusters import SMALL, leftovers
from tests.tools import left_out, require_tools
from xpmem_emu.cluster.paths import arena_note
from xpmem_emu.image import Image
from xpmem_emu.sim.cluster import SimCluster

# How long an example takes says how busy the machine is, and nothing about what is tested.
_ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("any machine", _ANY_MACHINE)
settings.load_profile("any machine")


def pytest_configure() -> None:
    """What tests start hears Ctrl-C, also when a shell started us in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    require_tools(item)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was left out or done otherwise than usual on this machine, in a line each."""
    for line in left_out(terminalreporter.getreports("skipped")):
        terminalreporter.write_line(line, red=True, bold=True)
    if note := arena_note():
        terminalreporter.write_line(note)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Processes that share the work must collect the same list, and parameters that come out of a
    set have another order in each of them."""
    names = dict.fromkeys(_function(item) for item in items)
    places = {name: place for place, name in enumerate(names)}
    items.sort(key=lambda item: (places[_function(item)], item.nodeid))


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


@pytest.fixture
def make_cluster() -> Iterator[Callable[..., SimCluster]]:
    """Builds clusters, and checks at the end that each is clean (S3, S10)."""
    made: list[SimCluster] = []

    def build(
        partitions: int = 2, image: Image = SMALL, domains: str = "", audits: bool = True
    ) -> SimCluster:
        """`domains` has a letter for each partition; empty: all are of one domain."""
        images = [replace(image, domain=letter) for letter in domains] or [image] * partitions
        cluster = SimCluster(len(images), image, image_of=images.__getitem__, audits=audits)
        cluster.run_until_active()
        made.append(cluster)
        return cluster

    yield build
    for cluster in made:
        assert leftovers(cluster) == {}


@pytest.fixture
def cluster(make_cluster: Callable[..., SimCluster]) -> SimCluster:
    """Two active partitions, which compare all their counts after each step."""
    return make_cluster()


@pytest.fixture
def unaudited(make_cluster: Callable[..., SimCluster]) -> SimCluster:
    """The same without: for tests that make up a state, or take very many steps."""
    return make_cluster(audits=False)
