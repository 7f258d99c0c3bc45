"""The entry point of a submitted job, on the cluster: ``python -m vitsearch.cli.on_cluster COMMAND ...``.

Looks first whether this Python has what vitsearch needs, since here nobody has installed it.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

REQUIREMENTS = "requirements.json"
MIN_PYTHON = (3, 11)


def main() -> None:
    """Check this Python, then run the command."""
    problem = problem_here(Path(REQUIREMENTS))
    if problem:
        print(f"error: {problem}", file=sys.stderr, flush=True)
        sys.exit(2)
    from vitsearch.cli import head
    from vitsearch.cli.main import run_app

    run_app(head.app)


def problem_here(requirements: Path) -> str:
    """What this Python lacks, in one line; empty where it lacks nothing.

    Args:
        requirements: The client's requirements, a JSON list as in package metadata.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < MIN_PYTHON:
        return f"the cluster's Python is {version}, and vitsearch needs {'.'.join(map(str, MIN_PYTHON))} or newer"
    missing = _missing(json.loads(requirements.read_text(encoding="utf-8")) if requirements.is_file() else [])
    if missing:
        install = " ".join(repr(one.split(" (")[0]) for one in missing)
        return f"the cluster's Python ({sys.executable}) lacks {', '.join(missing)}; there: pip install {install}"
    return ""


def _missing(requirements: list[str]) -> list[str]:
    from packaging.requirements import Requirement

    missing = []
    for text in requirements:
        one = Requirement(text)
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{one.name}{one.specifier}"
        try:
            there = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            missing.append(wanted)
            continue
        if not one.specifier.contains(there, prereleases=True):
            missing.append(f"{wanted} (has {there})")
    return missing


if __name__ == "__main__":
    main()
