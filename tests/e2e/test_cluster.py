"""A search on a Ray cluster that it did not start: two nodes that train, one that measures, by token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workers.executor
from tests.e2e import harness
from tests.e2e.harness import query, run, write_job
from vitsearch.config import DatasetSpec
from vitsearch.messages import MachineFacts
from vitsearch.train.data import load_dataset
from workers import RayExecutor, SharedData, local_ray
from workers.profiler import Profiler
from workers.trainer import Trainer

pytestmark = pytest.mark.xdist_group("e2e-cluster")
TOKEN = "0123456789abcdef" * 4
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

quiet = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **quiet})
cluster.add_node(num_cpus=1, resources={"target_edge": 1}, object_store_memory=100 * 2**20)
cluster.add_node(num_cpus=0, resources={"target_far": 1}, object_store_memory=100 * 2**20)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


class Placed(Profiler):
    """Tells its node as the name of its machine."""

    def facts(self) -> str:
        facts = MachineFacts.model_validate_json(super().facts())
        return facts.model_copy(update={"host": node_id()}).model_dump_json()


class Open(Trainer):
    """Tells its node, and what memory its images are in."""

    def ping(self) -> Any:
        images = self._data.source.images_NHWC
        return {
            "node": node_id(),
            "copied": images.flags.owndata or self._data.images_NHWC.data_ptr() != images.ctypes.data,
            "writable": images.flags.writeable,
        }


def tell_places() -> None:
    """In a driver's process: which nodes there are, which of them measure and train, and on which memory."""
    import ray

    workers.executor.Profiler = Placed  # type: ignore[misc]
    data = load_dataset(DatasetSpec(kind="digits", max_images=100), image_size=8, seed=0)
    with local_ray(workers=2, targets=["edge", "far"], object_store_mb=100):
        executor = RayExecutor(SharedData.put(data), workers=2, threads=1, trainer=Open)
        for name in ("edge", "far"):
            executor.facts_of(name)  # all start at once
        executor.wait_until_ready()
        measuring = {name: executor.facts_of(name, wait_s=120) for name in ("edge", "far")}
        told = {
            "nodes": {node["NodeID"]: node["Resources"] for node in ray.nodes()},
            "measuring": {name: facts and facts.host for name, facts in measuring.items()},
            "training": ray.get([worker.actor.ping.remote() for worker in executor._pool]),
        }
        executor.close()
    print(json.dumps(told))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """On loopback: one processor on each of two nodes, a target on the second and on a third."""
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("", timeout=60)


@pytest.fixture
def client(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    monkeypatch.setattr(harness, "ENVIRONMENT", {**harness.ENVIRONMENT, **environment})


@pytest.mark.usefixtures("client")
@pytest.mark.slow
def test_a_search_uses_both_nodes_and_the_target_of_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = write_job(
        tmp_path,
        search={"trials": 12, "max_workers": 5},  # as many as fit
        objectives=["accuracy", "latency"],
        targets=[{"name": "edge", "repeats": 5}],
    )
    found = run("run", job, "--out", out)

    assert found.returncode == 0, found.stderr
    assert query(out, "SELECT count(*) FROM results") == [(12,)]
    workers = query(out, "SELECT DISTINCT worker FROM trials WHERE kind = 'evaluate' ORDER BY worker")
    assert workers == [("w0",), ("w1",)]
    assert query(out, "SELECT DISTINCT target FROM profiles") == [("edge",)]


@pytest.mark.usefixtures("client")
@pytest.mark.slow
def test_a_target_is_measured_on_its_own_node_and_trainers_of_all_nodes_map_the_images() -> None:
    command = [sys.executable, "-c", f"from {__name__} import tell_places; tell_places()"]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, env=harness.ENVIRONMENT
    )
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout.splitlines()[-1])
    places = {
        name: [node for node, resources in told["nodes"].items() if f"target_{name}" in resources]
        for name in ("edge", "far")
    }
    assert {name: [node] for name, node in told["measuring"].items()} == places
    assert len({trainer["node"] for trainer in told["training"]}) == 2
    assert not any(trainer["copied"] or trainer["writable"] for trainer in told["training"])


@pytest.mark.slow
@pytest.mark.usefixtures("client")
def test_what_the_cluster_lacks_is_said_at_once(tmp_path: Path) -> None:
    found = run("run", write_job(tmp_path, targets=[{"name": "jetson"}]), "--out", tmp_path / "target")
    assert found.returncode == 1
    assert "no node of the cluster offers the target 'jetson'" in found.stderr
    found = run("run", write_job(tmp_path, search={"threads_per_worker": 3}), "--out", tmp_path / "threads")
    assert found.returncode == 1
    assert "a worker takes 3 CPU, and no node of the cluster has that (the largest have 1 CPU)" in found.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("address")
def test_without_an_address_a_search_starts_a_ray_of_its_own(tmp_path: Path) -> None:
    """Ray by itself would join whatever cluster runs on the machine."""
    job = write_job(tmp_path, search={"trials": 1, "max_workers": 1}, train={"epochs": 1})
    found = run("run", job, "--out", tmp_path / "out")
    assert found.returncode == 0, found.stderr


@pytest.mark.slow  # Ray tries for twenty seconds
@pytest.mark.usefixtures("client")
def test_a_wrong_token_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "ENVIRONMENT", {**harness.ENVIRONMENT, "RAY_AUTH_TOKEN": "wrong"})
    found = run("run", write_job(tmp_path), "--out", tmp_path / "out")
    assert found.returncode == 1
    assert "needs RAY_AUTH_MODE=token" in found.stderr
    assert "Traceback" not in found.stderr
