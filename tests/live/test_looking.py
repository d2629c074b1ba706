"""What it costs to look at a cluster."""

import pytest

from tests.cli.test_imports import HEAVY, OF_CLIENTS, imported

from .conftest import Up


@pytest.mark.live
def test_a_table_of_all_partitions_takes_a_client_and_nothing_heavy(up: Up) -> None:
    up(2)
    found = imported("get", "tasks", cluster="t")
    assert found & HEAVY == set()
    assert found >= OF_CLIENTS
