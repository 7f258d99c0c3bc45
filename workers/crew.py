"""How many trainers a search has, and what each takes: on this machine, or of a cluster that others use too."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import ray

from vitsearch.config import SearchSpec
from vitsearch.errors import StudyError
from workers.resources import default_workers
from workers.share import Share


@dataclass(frozen=True, kw_only=True)
class Crew:
    """The trainers of a search.

    Attributes:
        workers: How many to begin with.
        threads: Compute threads of each.
        cpus: Ray CPUs of each.
        gpus: Ray GPUs of each.
        share: The study's part of a cluster; None on a Ray of its own.
    """

    workers: int
    threads: int
    cpus: float
    gpus: float
    share: Share | None


def crew_of(search: SearchSpec, study: str) -> Crew:
    """What a job gets of the Ray that is initialised.

    Args:
        search: What the job says.
        study: A name of the study that no other on the cluster has.

    Raises:
        StudyError: No node of the cluster has room for even one trainer.
    """
    if not os.environ.get("RAY_ADDRESS"):
        workers = search.max_workers or default_workers()
        threads = search.threads_per_worker or max(1, (psutil.cpu_count() or 1) // workers)
        return Crew(workers=workers, threads=threads, cpus=1.0, gpus=0.0, share=None)
    threads = search.threads_per_worker or 1
    has_gpus = ray.cluster_resources().get("GPU", 0.0) >= 1
    gpus = search.gpus_per_worker if search.gpus_per_worker is not None else float(has_gpus)
    takes = {"CPU": float(threads), **({"GPU": gpus} if gpus else {})}
    _require_room(takes)
    share = Share(study, priority=search.priority, at_most=search.max_workers, takes=takes)
    return Crew(workers=1, threads=threads, cpus=float(threads), gpus=gpus, share=share)


def _require_room(takes: dict[str, float]) -> None:
    """Refuse trainers that fit nowhere; where no node trains yet, an autoscaler may bring one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0.0) for node in nodes):
        return
    if any(all(node.get(one, 0.0) >= amount for one, amount in takes.items()) for node in nodes):
        return
    needed = " and ".join(f"{amount:g} {one}" for one, amount in takes.items())
    largest = ", ".join(f"{max((n.get(one, 0.0) for n in nodes), default=0.0):g} {one}" for one in takes)
    raise StudyError(
        f"a worker takes {needed}, and no node of the cluster has that (the largest have {largest}); "
        f"lower search.threads_per_worker or search.gpus_per_worker, or add a node"
    )
