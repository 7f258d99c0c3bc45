"""A local Ray and the names of its resources."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import ray

from vitsearch.errors import InputError, StudyError, first_line

MAX_WORKERS_PER_PROCESSOR = 4
TARGET_SHARE = 0.001
"""What a profiler takes of a target's resource, which says where its process runs. That one measurement waits for
another is the work of a lock on that machine: so studies that share a target take turns, model by model."""


OWN_TARGET = "local"  # the machine of the driver, wherever that is


def target_resource(name: str) -> str:
    """The Ray resource that stands for a target; there is one of it."""
    return f"target_{name}"


def place_of_target(name: str) -> str:
    """The Ray resource that leads to a target's node: its own, or for ``local`` that of the driver's node."""
    own = target_resource(name)
    if name == OWN_TARGET and own not in ray.cluster_resources():
        return place_of_driver()
    return own


def place_of_driver() -> str:
    """The Ray resource that leads to the driver's node."""
    return f"node:{ray.util.get_node_ip_address()}"


def default_workers() -> int:
    """Two, or one for every two processors."""
    return max(2, (os.cpu_count() or 2) // 2)


def check_workers(workers: int | None) -> None:
    """Refuse more trainers than this machine can feed; a cluster (``RAY_ADDRESS``) says itself what it has.

    Raises:
        InputError: More than four for each processor.
    """
    processors = os.cpu_count() or 1
    if (
        workers is not None
        and workers > MAX_WORKERS_PER_PROCESSOR * processors
        and not os.environ.get("RAY_ADDRESS")
    ):
        raise InputError(
            f"must be at most {MAX_WORKERS_PER_PROCESSOR * processors} here, which is "
            f"{MAX_WORKERS_PER_PROCESSOR} for each of {processors} processors",
            field="search.max_workers",
            value=workers,
            remedy=f"{default_workers()} is what this machine would choose; more need a cluster (RAY_ADDRESS)",
        )


def check_devices(targets: Sequence[str]) -> None:
    """Refuse targets that only a cluster (``RAY_ADDRESS``) can have, where a search would have a Ray of its own.

    Raises:
        InputError: One of them is not this machine.
    """
    for name in targets:
        if name != OWN_TARGET and not os.environ.get("RAY_ADDRESS"):
            raise InputError(
                "names a device that joins a cluster, and here is this machine alone", field="targets", value=name,
                remedy=f"write name: {OWN_TARGET} to measure here, or search on its cluster, by vitsearch submit "
                "or with RAY_ADDRESS set to it",
            )  # fmt: skip


@contextmanager
def local_ray(
    *,
    workers: int,
    targets: list[str],
    object_store_mb: int,
    temp_dir: Path | None = None,
) -> Iterator[None]:
    """A Ray of its own for the duration of a search, or the cluster that ``RAY_ADDRESS`` names.

    Args:
        workers: Trainers that must fit on this machine; a cluster says itself what it has.
        targets: Targets that must be there now. A Ray of its own has this machine alone, which passes for no other
            device.
        object_store_mb: Room for the images.
        temp_dir: Where Ray logs; its default otherwise.

    Raises:
        StudyError: The cluster does not answer, or lacks a target.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        _join(address)
    else:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        with _sigterm_stays_ours():
            ray.init(
                "local",  # not a cluster that happens to run on this machine
                num_cpus=max(workers, psutil.cpu_count() or 1),
                resources={target_resource(OWN_TARGET): 1},
                include_dashboard=False,
                object_store_memory=max(100, object_store_mb) * 1024 * 1024,
                logging_level=logging.ERROR,
                log_to_driver=False,
                _temp_dir=str(temp_dir) if temp_dir else None,
            )
    try:
        _require_targets(targets)
        yield
    finally:
        ray.shutdown()


@contextmanager
def _sigterm_stays_ours() -> Iterator[None]:
    """Keep this process's handler: Ray sets one that ends it wherever it is, and in C one that aborts it."""
    handler = signal.getsignal(signal.SIGTERM)
    original = ray._private.utils.set_sigterm_handler  # noqa: SLF001 - there is no public switch
    ray._private.utils.set_sigterm_handler = lambda _: None  # noqa: SLF001
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = original  # noqa: SLF001
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _join(address: str) -> None:
    try:
        with _sigterm_stays_ours():
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError) as error:
        raise StudyError(
            f"the Ray cluster at {address} (RAY_ADDRESS) does not let us in: {first_line(error)}; "
            f"check that it is up and that `ray --version` is {ray.__version__} there too; a cluster with token "
            f"authentication needs RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) here"
        ) from error


def _require_targets(targets: Sequence[str]) -> None:
    """Refuse at once what a cluster could only leave pending for ever."""
    offered = ray.cluster_resources()
    for name in targets:
        if name != OWN_TARGET and offered.get(target_resource(name), 0) < 1:
            raise StudyError(
                f"no node of the cluster offers the target {name!r}; start one with: "
                f"vitsearch target join --name {name} --address HEAD:6379"
            )
