"""A node of a cluster dies under a search."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import harness
from tests.e2e.harness import (
    assert_front_is_that_of_the_results,
    query,
    results_stored,
    start,
    wait_for,
    write_job,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("e2e-cluster"), pytest.mark.timeout(600)]
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

quiet = {"object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **quiet})
nodes = [cluster.add_node(num_cpus=1, **quiet)]
print(cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "kill":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("killed", flush=True)
    elif line.strip() == "add":
        nodes.append(cluster.add_node(num_cpus=1, **quiet))
        print("added", flush=True)
cluster.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    ) as process:  # fmt: skip
        yield process
        process.communicate("", timeout=60)


def tell(cluster: subprocess.Popen[str], word: str) -> str:
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    cluster.stdin.write(f"{word}\n")
    cluster.stdin.flush()
    return cluster.stdout.readline().strip()


def test_a_dead_node_costs_its_trials_an_attempt_and_the_search_goes_on_with_what_is_left(
    tmp_path: Path, cluster: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.stdout is not None
    address = cluster.stdout.readline().strip()
    variables = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
    monkeypatch.setattr(harness, "ENVIRONMENT", {**harness.ENVIRONMENT, **variables})
    out = tmp_path / "out"
    job = write_job(tmp_path, search={"trials": 14}, train={"epochs": 12, "early_stop": False})
    process = start("run", job, "--out", out)
    wait_for(lambda: both_train(out), process)
    assert tell(cluster, "kill") == "killed"
    before = results_stored(out)
    wait_for(lambda: results_stored(out) >= before + 2, process)  # with one node
    assert tell(cluster, "add") == "added"
    wait_for(lambda: both_train(out), process)  # and with two again
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 0, output
    trials = query(out, "SELECT number, state, attempts FROM trials WHERE kind = 'evaluate'")
    assert len(trials) == 14
    assert {state for _, state, _ in trials} == {"told"}
    outcomes = [json.loads(text) for (text,) in query(out, "SELECT outcome FROM results")]
    assert [outcome["kind"] for outcome in outcomes] == ["result"] * 14
    assert max(attempts for _, _, attempts in trials) == 2, "the trial on the dead node ran twice"
    assert_front_is_that_of_the_results(out)


def both_train(out: Path) -> bool:
    """Whether two trials are under way and have each finished an epoch."""
    if results_stored(out) < 1:
        return False
    leased = {f"{number:05d}" for (number,) in query(out, "SELECT number FROM trials WHERE state = 'leased'")}
    begun = {file.parent.name for file in (out / "artifacts" / "trials").glob("*/epoch.pt")}
    time.sleep(0.1)
    return len(leased & begun) == 2
