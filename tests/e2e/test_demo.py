"""``make demo`` as a newcomer types it, in the environment that is there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import vitsearch
from tests.e2e.harness import ENVIRONMENT, front, query

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("e2e-demo"), pytest.mark.timeout(1200)]

JOB_S = 180


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_demo(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    installed = f"{sys.prefix}/.installed"  # nothing is installed again, even where the constraints are newer
    command = ["make", f"VENV={sys.prefix}", f"RUN={out}", "-o", installed, "demo"]
    if not Path(installed).exists():
        command = ["make", f"VENV={sys.prefix}", f"RUN={out}", "-o", "install", "demo"]
    # Two processors for two workers, however the tests' own threads are limited.
    environment = {k: v for k, v in ENVIRONMENT.items() if k not in {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}}
    busy = os.getloadavg()[0] > 1  # other tests beside this one: the two processors are not the demo's own
    made = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, env=environment)
    assert made.returncode == 0, f"{made.stdout}{made.stderr}"
    assert "Pareto front of digits" in made.stdout

    trials = query(out, "SELECT number, worker, state FROM trials WHERE kind = 'evaluate'")
    assert len(trials) >= 24
    assert {state for _, _, state in trials} == {"told"}
    assert len({worker for _, worker, _ in trials}) == 2, "both workers trained"
    ((seconds,),) = query(out, "SELECT elapsed_s FROM studies")
    assert seconds < (4 * JOB_S if busy else JOB_S)

    found = front(out)
    assert len(found["front"]) >= 3
    knee = next(member for member in found["front"] if member["trial"] == found["knee"])
    assert knee["test_accuracy"] > 0.9
    assert max(member["accuracy"] for member in found["front"]) > 0.95
    with Image.open(out / "pareto.png") as picture:
        assert picture.size[0] > 500
    assert "Plotly" in (out / "pareto.html").read_text(encoding="utf-8")

    with contextlib.closing(sqlite3.connect(f"file:{out / 'mlflow.db'}?mode=ro", uri=True)) as records:
        rows = records.execute("SELECT run_uuid, value FROM tags WHERE key = 'vitsearch.trial'").fetchall()
        pareto = dict(records.execute("SELECT run_uuid, value FROM tags WHERE key = 'pareto'").fetchall())
    recorded = {int(number) for run, number in rows if pareto.get(run) == "current"}
    assert recorded == {member["trial"] for member in found["front"]}

    bundle = vitsearch.load(out / "bundle")
    assert bundle.metrics.trial == found["knee"]
    assert (out / "bundle" / "model.onnx").stat().st_size > 10_000
    written = re.search(r"digit\.png: a handwritten (\d)", made.stdout)
    classified = re.search(r"digit\.png: (\d) \((\d+\.\d) %\)", made.stdout)
    assert written
    assert classified
    assert classified.group(1) == written.group(1)
    assert float(classified.group(2)) > 50
    assert bundle.predict(out / "digit.png")[0].class_name == written.group(1)
