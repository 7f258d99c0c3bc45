"""A search in which no trial succeeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.harness import front, run, write_job

pytestmark = pytest.mark.xdist_group("e2e-display")


@pytest.mark.slow
def test_a_search_without_a_success_ends_with_1_and_leaves_its_reports(tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = write_job(tmp_path, constraints=[{"metric": "params", "max": 1}], search={"trials": 2})
    found = run("run", job, "--out", out)
    assert found.returncode == 1, found.stderr
    assert "error: no candidate meets the constraints: of 200, params of at most 1 turned away 200" in found.stderr
    assert "vitsearch export" not in found.stdout
    assert "parameters" in (out / "trials.csv").read_text(encoding="utf-8")
    assert front(out)["front"] == []
