"""Every target of a cluster, asked on its own node."""

from __future__ import annotations

import time

import ray

from vitsearch.messages import MachineFacts, TargetFacts
from workers.deaths import reason_of
from workers.resources import OWN_TARGET, TARGET_SHARE, place_of_target

PREFIX = "target_"
ANSWER_TIMEOUT_S = 60.0


def known_targets() -> list[TargetFacts]:
    """The targets there are and those that have left; Ray must be initialised on the cluster's head."""
    from ray.util.state import list_nodes

    found: dict[str, TargetFacts] = {}
    for node in list_nodes(detail=True, limit=10_000):
        names = [one.removeprefix(PREFIX) for one in (node.resources_total or {}) if one.startswith(PREFIX)]
        is_there = node.state == "ALIVE"
        seen_at = time.time() if is_there else (node.end_time_ms or 0) / 1000
        for name in names:
            known = found.get(name)
            if known is None or (is_there, seen_at) > (known.is_there, known.seen_at):
                found[name] = TargetFacts(name=name, is_there=is_there, seen_at=seen_at)
    found.setdefault(OWN_TARGET, TargetFacts(name=OWN_TARGET, is_there=True, seen_at=time.time()))
    asked = {name: _ask(name) for name, target in found.items() if target.is_there}
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_TIMEOUT_S)
    return [_answered(found[name], asked.get(name)) for name in sorted(found)]


def _ask(name: str) -> ray.ObjectRef:
    options = {"num_cpus": 0, "resources": {place_of_target(name): TARGET_SHARE}, "max_retries": 0}
    return ray.remote(_facts).options(**options).remote()


def _facts() -> str:
    from vitsearch.profile.facts import machine_facts

    return machine_facts().model_dump_json()


def _answered(target: TargetFacts, reference: ray.ObjectRef | None) -> TargetFacts:
    if reference is None:
        return target
    try:
        text = ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return target.model_copy(update={"problem": f"no answer within {ANSWER_TIMEOUT_S:g} s"})
    except ray.exceptions.RayError as error:
        return target.model_copy(update={"problem": reason_of(error)})
    try:
        return target.model_copy(update={"machine": MachineFacts.model_validate_json(text)})
    except ValueError:
        return target.model_copy(update={"problem": "its answer is that of another vitsearch"})
