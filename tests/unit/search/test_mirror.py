from __future__ import annotations

import logging
from pathlib import Path

import optuna
import pytest

from tests.unit.search.factory import make_driver, make_job, make_store


def test_the_mirror_holds_every_told_trial_once_also_after_a_resume(tmp_path: Path) -> None:
    job = make_job(storage={"optuna_mirror": True}, search={"sampler": "random", "trials": 4})
    store = make_store(tmp_path, job)
    make_driver(tmp_path, store).run()
    store.set_job(job.with_overrides(trials=6))
    driver = make_driver(tmp_path, store)
    driver.run()

    copy = optuna.load_study(study_name="test", storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    source = driver._asker.study
    assert [t.user_attrs["vitsearch_trial"] for t in copy.trials] == [t.number for t in source.trials]
    assert [t.values for t in copy.trials] == [t.values for t in source.trials]
    assert [t.params for t in copy.trials] == [t.params for t in source.trials]


@pytest.mark.parametrize("content", [b"no database" * 1000, b""], ids=["damaged", "a folder"])
def test_a_mirror_that_cannot_be_opened_is_a_warning(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "optuna.db"
    file.write_bytes(content) if content else file.mkdir()
    job = make_job(storage={"optuna_mirror": True}, search={"sampler": "random", "trials": 2})
    with caplog.at_level(logging.WARNING):
        assert make_driver(tmp_path, make_store(tmp_path, job)).run() == "trial budget used"
    assert len(caplog.records) == 1
    assert "the Optuna mirror" in caplog.text
    assert not content or file.read_bytes() == content
