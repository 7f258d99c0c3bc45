"""What an export says of a study that is damaged."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from tests.unit.report.factory import DATA, add_trials, job
from vitsearch.cli import exporting
from vitsearch.cli.exporting import export_trial
from vitsearch.cli.finding import in_folder
from vitsearch.cli.run_folder import new_study
from vitsearch.errors import InputError
from vitsearch.search import Places
from vitsearch.search.places import SAMPLE_FILE


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archived(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, array)
    return stream.getvalue()


GOOD = np.zeros((4, 8, 8, 1), np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no array", b"PK\x03\x04 no archive", saved(GOOD)[:-9], saved(GOOD)[:40], archived(GOOD),
        saved(GOOD.astype(np.float32)), saved(GOOD[0]), saved(GOOD[:, :4]), saved(GOOD[:0]),
        saved(GOOD[0, 0, 0, 0]),
    ],
    ids=["empty", "text", "zip", "cut", "header", "archive", "float", "one", "size", "none", "scalar"],
)  # fmt: skip
def test_a_damaged_sample_of_images_is_named(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "facts_of", lambda *_: None)  # those of a trial without weights
    store = new_study(job(), tmp_path / "study")
    store.acquire()
    store.set_data(DATA)
    add_trials(store, 12)
    file = Path(Places.of(job(), tmp_path / "study").root, SAMPLE_FILE)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{file}: is damaged \(.*; restore it from a copy of the study$"):
        export_trial(in_folder(tmp_path / "study"), "knee", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
