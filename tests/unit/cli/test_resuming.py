"""What an edited job file may change under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vitsearch.cli.resuming import as_written, resumed_job
from vitsearch.cli.run_folder import JOB_FILE, new_study, write_job
from vitsearch.config import JobSpec, load_job
from vitsearch.errors import InputError


@pytest.fixture
def stored(tmp_path: Path) -> JobSpec:
    source = tmp_path / "mine.yaml"
    source.write_text("{name: j, dataset: {kind: digits}, space: vit_micro_8, train: {recipe: deit}}")
    job = load_job(source)
    new_study(job, tmp_path / "out")
    return job


def edited(tmp_path: Path, **changes: Any) -> Path:
    """The run's job.yaml with some fields, by dotted name, changed."""
    file = tmp_path / "out" / JOB_FILE
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    for name, value in changes.items():
        *parts, last = name.split("__")
        inner = data
        for part in parts:
            inner = inner[part]
        inner[last] = value
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    return file


def test_an_untouched_file_changes_nothing(tmp_path: Path, stored: JobSpec):
    assert resumed_job(stored, tmp_path / "out" / JOB_FILE) == (stored, [])


def test_the_number_format_measured_meanwhile_is_no_edit(tmp_path: Path, stored: JobSpec):
    train = stored.train.model_copy(update={"autocast": "fp32"})
    running = stored.model_copy(update={"train": train})
    file = tmp_path / "out" / JOB_FILE
    assert resumed_job(running, file) == (running, [])
    assert as_written(running, file).train.autocast == "auto"


def test_budgets_and_addresses_are_taken_over(tmp_path: Path, stored: JobSpec):
    file = edited(tmp_path, search__trials=99, search__time_limit_s=60, tracking__enabled=False)
    job, notes = resumed_job(stored, file)
    assert (job.search.trials, job.search.time_limit_s, job.tracking.enabled) == (99, 60, False)
    assert len(notes) == 3
    assert f"search.trials is 99 now, as {file} says" in notes


def test_what_makes_trials_comparable_is_refused_by_name(tmp_path: Path, stored: JobSpec):
    file = edited(tmp_path, train__epochs=7, seed=5, search__sampler="tpe", search__trials=99)
    with pytest.raises(InputError) as caught:
        resumed_job(stored, file)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert f"{file}: train.epochs: is 7 here and 300 in the study, and cannot change" in str(caught.value)
    assert any("search.sampler" in line for line in lines)
    assert any("seed" in line for line in lines)
    assert "with a new --out" in lines[-1]


def test_another_name_is_an_edit_like_any_other(tmp_path: Path, stored: JobSpec):
    with pytest.raises(InputError, match='name: is "k" here and "j" in the study'):
        resumed_job(stored, edited(tmp_path, name="k"))


def test_passwords_in_new_addresses_are_not_shown(tmp_path: Path, stored: JobSpec):
    file = edited(tmp_path, tracking__uri="https://me:s3cret@host/")
    _, notes = resumed_job(stored, file)
    assert "s3cret" not in " ".join(notes)


def test_a_job_is_written_whole(tmp_path: Path, stored: JobSpec):
    write_job(stored, tmp_path)
    assert load_job(tmp_path / JOB_FILE) == stored
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("secret", ["SEC RET", "SEC'RET"])
def test_a_changed_address_is_held_to_the_rules_of_a_new_job(tmp_path: Path, stored: JobSpec, secret: str):
    for name in ("tracking__uri", "dataset__path"):
        file = edited(tmp_path, **{name: f"https://me:{secret}@h/x"})
        with pytest.raises(InputError, match=f"{JOB_FILE}: {name.replace('__', '.')}: must ") as caught:
            resumed_job(stored, file)
        assert "RET" not in str(caught.value)
        (tmp_path / "out" / JOB_FILE).unlink()
        write_job(stored, tmp_path / "out")
