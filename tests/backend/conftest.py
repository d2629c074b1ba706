"""Clusters of real processes with the fake kernel, in folders of the test's own."""

from tests.live.conftest import home, refusal, up  # noqa: F401 - the fixtures
