from __future__ import annotations

import os

import pytest

from vitsearch.errors import InputError
from workers import check_devices, check_workers


def test_more_workers_than_a_machine_can_feed_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    check_workers(None)
    check_workers(8)
    with pytest.raises(InputError, match="at most 8 here, which is 4 for each of 2 processors, but got 9"):
        check_workers(9)


def test_a_cluster_knows_itself_what_it_has(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    check_workers(10_000)


def test_one_machine_does_not_pass_for_another_device(monkeypatch: pytest.MonkeyPatch):
    """Its figures stood under the device's name."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    check_devices(["local"])
    with pytest.raises(
        InputError, match=r"targets: names a device that joins a cluster.* got 'jetson'; write name: local"
    ):
        check_devices(["local", "jetson"])
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    check_devices(["jetson"])
