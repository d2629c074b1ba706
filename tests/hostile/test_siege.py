"""Every attack of `make hostile`, a little of each: nothing is lost, grows or stays."""

from collections.abc import Iterator

import pytest

from .attacks import ATTACKS, Attack
from .siege import ATTEMPTS, HONEST, Siege, State, Told, besieged, failures, growth, lost

pytestmark = pytest.mark.live

ROUNDS = 60
SECONDS = 0.2
WITHOUT_REFUSALS = {
    # What they do is allowed, up to a limit that a few rounds do not reach.
    "client: flood",
    "client: crowded flood",
    "client: never reads",
    "client: deaf subscribers",
    "client: connection storm",
    "client: sessions",
    "client: tasks",
    "client: segments",
    "client: attachments",
    "client: areas",
    "client: memory",
    "client: huge ranges",
    "client: expensive looks",
    "client: sleepers",
    "client: long bulk",
}


@pytest.fixture(scope="module")
def siege() -> Iterator[Siege]:
    with besieged() as made:
        yield made


def test_each_attack_says_what_it_tries_and_has_a_name_of_its_own() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 20
    assert all(attack.tries.endswith(".") for attack in ATTACKS)
    assert {attack.name for attack in ATTACKS} > WITHOUT_REFUSALS


@pytest.mark.timeout(200)
def test_attacks_cost_others_nothing(siege: Siege) -> None:
    for attack in ATTACKS[:8]:
        siege.attack_a_little(attack, 5, SECONDS)
    before = siege.look()
    for attack in ATTACKS:
        told = _made(siege, attack)
        assert told.tried, attack.name
    siege.recover(before)
    assert failures(before, siege.look()) == []


def _made(siege: Siege, attack: Attack) -> Told:
    """An attack, again where its client had left before the answer of a busy machine."""
    refused = attack.name.startswith("client") and attack.name not in WITHOUT_REFUSALS
    for number in range(ATTEMPTS):
        told = siege.attack_a_little(attack, min(attack.count, ROUNDS), SECONDS * 2**number)
        print(attack.name, told)
        if told.refused + told.cut or not refused:
            return told
    raise AssertionError(f"nothing of {attack.name} was refused")


def test_what_an_attack_leaves_is_seen() -> None:
    def state(own: int, files: int, epoch: int) -> State:
        return State(
            dict.fromkeys(HONEST, files), dict.fromkeys(HONEST, own), dict.fromkeys(HONEST, epoch)
        )

    before = state(50 << 20, 40, 1)
    assert failures(before, state(69 << 20, 44, 1)) == []
    worse = state(71 << 20, 60, 2)
    assert (growth(before, worse), lost(before, worse)) == (21 << 20, 2)
    assert len(failures(before, worse)) == 3
