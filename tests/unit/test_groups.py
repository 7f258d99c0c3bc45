"""Tests that share costly fixtures, or a machine to themselves, run in one process."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("canary")
def test_groups_reach_the_scheduler(request: pytest.FixtureRequest) -> None:
    """Some pairs of pytest and pytest-xdist ignore groups without a word."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not under --dist loadgroup")
    assert request.node.nodeid.endswith("@canary"), "pytest-xdist no longer groups tests under this pytest"
