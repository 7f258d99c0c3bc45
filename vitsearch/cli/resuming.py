"""A job file that was edited after its study had begun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vitsearch.config import JobSpec, load_job
from vitsearch.config.addresses import check_addresses
from vitsearch.errors import InputError, hide_password, hide_passwords

# What may change under way: budgets, machines and addresses, but nothing that makes trials incomparable.
CHANGEABLE = (
    "search.trials", "search.time_limit_s", "search.max_workers", "search.threads_per_worker",
    "search.gpus_per_worker", "search.priority", "search.max_retries", "search.trial_timeout_s", "final.retrain",
    "storage.url", "tracking.", "dataset.path", "dataset.download",
)  # fmt: skip


def resumed_job(stored: JobSpec, file: Path) -> tuple[JobSpec, list[str]]:
    """The stored job with what its file has changed and may change.

    Args:
        stored: The job as it runs.
        file: The job as a person left it.

    Returns:
        The job to go on with, and a sentence for each change that was taken over.

    Raises:
        InputError: The file is broken, or changes what makes the trials of a study comparable.
    """
    written = load_job(file)
    if written.train.autocast == "auto":  # measured when the study began
        written = _with_autocast(written, stored.train.autocast)
    before, after = _flat(stored), _flat(written)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    check_addresses(written, where=str(file), fields=changed)
    refused = [name for name in changed if not name.startswith(CHANGEABLE)]
    if refused:
        errors = [
            InputError(
                f"is {_shown(after.get(name))} here and {_shown(before.get(name))} in the study, "
                f"and cannot change once a study has begun",
                where=str(file),
                field=name,
            )
            for name in refused
        ]
        errors[-1].remedy = "put it back to go on, or start a new study: vitsearch run JOB.yaml with a new --out"
        errors[0].more = errors[1:]
        raise errors[0]
    return written, [f"{name} is {_shown(after.get(name))} now, as {file} says" for name in changed]


def as_written(job: JobSpec, file: Path) -> JobSpec:
    """The job as its file should hold it: what was measured stays to be measured where the file leaves it open."""
    return _with_autocast(job, load_job(file).train.autocast)


def _with_autocast(job: JobSpec, autocast: str) -> JobSpec:
    return job.model_copy(update={"train": job.train.model_copy(update={"autocast": autocast})})


def _flat(job: JobSpec) -> dict[str, Any]:
    """Every setting by its dotted name; lists are settings."""
    found: dict[str, Any] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else str(key))
        else:
            found[name] = value

    walk(job.model_dump(mode="json", exclude_none=True), "")
    return found


def _shown(value: Any) -> str:
    shown = hide_password(value) if isinstance(value, str) else value
    return "absent" if shown is None else hide_passwords(json.dumps(shown, ensure_ascii=False))
