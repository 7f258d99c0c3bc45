"""Which runtimes of a target execute a candidate, and which of their figures counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitsearch.candidate import Candidate
from vitsearch.config import RUNTIMES, TargetSpec
from vitsearch.messages import Profile


def executes(runtime: str, candidate: Candidate) -> bool:
    """Whether a runtime computes in floating point, or in the candidate's own bits everywhere."""
    bits, depth = RUNTIMES[runtime].bits, candidate.pruned_architecture.depth
    precision = candidate.precision
    own = {*precision.weight_bits_per_block(depth), *precision.activation_bits_per_block(depth)}
    return bits is None or own == {bits}


def able_runtimes(target: TargetSpec, candidate: Candidate) -> list[str]:
    """The runtimes of a target that execute a candidate, the main one first.

    Raises:
        ValueError: There are none.
    """
    able = [name for name in target.runtimes if executes(name, candidate)]
    if not able:
        raise ValueError(f"no runtime of target {target.name!r} executes {candidate.summary()}")
    return able


def runtime_of(profile: Profile) -> str:
    """The runtime of a profile, by its name in ``RUNTIMES``."""
    return profile.conditions.runtime.partition(" ")[0]


def fastest_of(found: Sequence[Profile], failed: Mapping[str, str]) -> Profile:
    """The profile of the fastest runtime, with the others and those that failed inside it."""
    fastest = min(found, key=lambda profile: profile.latency_ms_p50)
    others = tuple(one for one in found if one is not fastest)
    return fastest.model_copy(update={"others": others, "failed": dict(failed)})


def one_by_one(profile: Profile) -> list[Profile]:
    """What ``fastest_of`` has put together."""
    return [one.model_copy(update={"others": (), "failed": {}}) for one in (profile, *profile.others)]


def one_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0] if said else 'no message'}"
