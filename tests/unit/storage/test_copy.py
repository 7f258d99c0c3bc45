"""One study of several in a shared database, as a file of its own."""

from __future__ import annotations

from pathlib import Path

from tests.unit.report.factory import DATA, add_trials, job
from vitsearch.report import StudyReport
from vitsearch.storage import StudyStore, database_url, open_engine
from vitsearch.storage.copy import copy_study


def test_a_study_in_postgresql_becomes_a_file(tmp_path: Path, postgres_url: str):
    engine, ids = open_engine(postgres_url), {}
    for name, trials in (("copy-other", 3), ("copy-wanted", 5)):
        store = StudyStore.create(engine, job(name=name, storage={"url": postgres_url}))
        store.acquire()
        store.set_data(DATA)
        add_trials(store, trials)
        store.release("finished")
        ids[name] = store.study_id
    original = StudyReport.load(StudyStore(engine, ids["copy-wanted"]))

    copied = copy_study(engine, ids["copy-wanted"], tmp_path)
    engine.dispose()

    assert copied.storage.url is None
    file = open_engine(database_url(tmp_path))
    report = StudyReport.load(StudyStore.find(file))
    file.dispose()
    assert report.study.name == "copy-wanted"
    assert [trial.model_dump() for trial in report.trials] == [trial.model_dump() for trial in original.trials]
    assert report.hypervolume == original.hypervolume


def test_passwords_stay_behind(tmp_path: Path):
    store = StudyStore.create(
        open_engine(database_url(tmp_path)),
        job(
            tracking={"uri": "https://me:geheim@mlflow.example.com"},
            dataset={"kind": "npz", "path": "https://h/x.npz?sig=geheim"},
            train={"init": "pretrained", "pretrained": {"bundle": "https://me:geheim@h/b.zip"}},
        ),
    )
    (tmp_path / "copy").mkdir()
    copied = store.copy_to(tmp_path / "copy")
    assert copied.tracking.uri == "https://***@mlflow.example.com"
    assert copied.dataset.path == "https://h/x.npz?sig=***"
    assert b"geheim" not in (tmp_path / "copy" / "study.db").read_bytes()
