"""Whether a cluster's Python has what vitsearch needs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vitsearch.cli import on_cluster
from vitsearch.cli.on_cluster import problem_here


def told(folder: Path, *requirements: str) -> str:
    file = folder / "requirements.json"
    file.write_text(json.dumps(requirements))
    return problem_here(file)


def test_nothing_is_wrong_here(tmp_path: Path):
    from importlib import metadata

    assert told(tmp_path, *(metadata.requires("vitsearch") or [])) == ""
    assert problem_here(tmp_path / "absent.json") == ""


def test_what_is_missing_or_too_old_is_named_with_the_command(tmp_path: Path):
    problem = told(tmp_path, "numpy>=1", "no-such-thing>=3", "pydantic>=99", "never; extra == 'dev'")
    assert "lacks no-such-thing>=3, pydantic>=99 (has " in problem
    assert problem.endswith("pip install 'no-such-thing>=3' 'pydantic>=99'")
    assert "numpy" not in problem
    assert "never" not in problem


def test_an_old_python_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(on_cluster, "MIN_PYTHON", (9, 9))
    version = ".".join(map(str, sys.version_info[:3]))
    assert told(tmp_path) == f"the cluster's Python is {version}, and vitsearch needs 9.9 or newer"
