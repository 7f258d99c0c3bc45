"""What a target must offer before a search begins that would wait for its figures in vain."""

from __future__ import annotations

from collections.abc import Callable

from vitsearch.config import LIBRARIES, RUNTIMES, JobSpec, TargetSpec
from vitsearch.errors import StudyError
from vitsearch.messages import MachineFacts


def check_targets(job: JobSpec, facts_of: Callable[[str], MachineFacts | None]) -> None:
    """Refuse targets that lack what the job asks of them; one that does not answer is waited for.

    Args:
        job: The job.
        facts_of: What a target's machine can measure, as far as it has answered.

    Raises:
        StudyError: The message names the target, what it lacks and what to do.
    """
    named = {*job.objectives, *(constraint.metric for constraint in job.constraints), *job.eer.metrics}
    for number, target in enumerate(job.targets):
        facts = facts_of(target.name)
        if facts is not None:
            lacking = _lacking(target, facts, needs_energy=number == 0 and "energy" in named)
            if lacking:
                raise StudyError(f"target {target.name!r} ({facts.host}) {lacking}")


def _lacking(target: TargetSpec, facts: MachineFacts, *, needs_energy: bool) -> str:
    library = RUNTIMES[target.runtime].library
    if library not in facts.runtimes:
        return f"lacks {library}, which {target.runtime} needs; there: pip install {LIBRARIES[library].install}"
    if target.device == "cuda" and not facts.gpus:
        return "has no GPU that PyTorch finds; install its driver, or set device: cpu"
    if needs_energy and target.device not in facts.energy:
        counter, remedy = {
            "cpu": ("RAPL", "let its user read /sys/class/powercap/*/energy_uj"),
            "cuda": ("NVML", "there: pip install 'vitsearch[nvml]'"),
        }[target.device]
        return f"has no energy counter that can be read ({counter}); {remedy}, or leave energy out"
    return ""
