"""No view of a study publishes what lets people in at an address of its job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.unit.report import factory
from vitsearch.config import NetworkSpec
from vitsearch.export import card
from vitsearch.report import StudyReport, picture
from vitsearch.report.account import trial_account
from vitsearch.report.axes import data_words
from vitsearch.report.plots import front_html
from vitsearch.report.tables import front_markdown, trial_markdown, trials_csv

ADDRESSES = {
    "https://bucket/photos.zip?X-Amz-Signature=GEHEIM&sig=GEHEIM": "photos.zip",
    "https://bucket/photos.zip?unheard-of=GEHEIM": "photos.zip",
    "https://bucket/photos.zip#GEHEIM": "photos.zip",
    "https://me:GEHEIM@bucket/deep/photos.zip": "photos.zip",
    "https://me:GEHEIM@photos.zip": "photos.zip",
    "https://me:GEHEIM@photos.zip/": "photos.zip",
    "https://me:GE/HEIM@photos.zip": "photos.zip",
    "https://me:GE?HEIM@photos.zip": "photos.zip",
    "https://GEHEIM@photos.zip?GEHEIM": "photos.zip",
    "s3://photos.zip": "photos.zip",
}


def drawn(report: StudyReport) -> str:
    figure = Figure()
    picture._write_frame(figure, report)
    return "\n".join(text.get_text() for text in figure.texts)


def on_card(report: StudyReport) -> str:
    place = report.job.dataset.path
    return card._network(NetworkSpec(bundle=place)) + card._network(NetworkSpec(timm="vit", checkpoint=place))


NAMING: dict[str, Callable[[StudyReport], str]] = {
    "words": data_words,
    "page": front_html,
    "picture": drawn,
    "MLflow's note": front_markdown,
    "model card": on_card,
}
NAMELESS: dict[str, Callable[[StudyReport], str]] = {
    "table": trials_csv,
    "trial": lambda report: trial_markdown(report.trials[0], report),
    "account": lambda report: "\n".join(trial_account(report.trials[0], report)),
}


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("view", {**NAMING, **NAMELESS})
def test_an_address_is_shown_by_its_name_alone(address: str, view: str, tmp_path: Path):
    job = factory.job(dataset={"kind": "npz", "path": address})
    text = {**NAMING, **NAMELESS}[view](factory.report(tmp_path, job, 3))
    assert not [part for part in ("GE/", "GEHEIM", "HEIM@", "GE?") if part in text]
    assert (ADDRESSES[address] in text) == (view in NAMING)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"kind": "npz", "path": "/data/what?#me@home.npz"}, "npz what?#me@home.npz:"),
        ({"kind": "huggingface", "name": "zh-plus/tiny-imagenet"}, "huggingface zh-plus/tiny-imagenet:"),
        ({"kind": "huggingface", "name": "https://me:GEHEIM@hub/birds"}, "huggingface birds:"),
    ],
)
def test_a_path_and_a_hub_s_name_are_shown_as_they_are(source: dict[str, str], words: str, tmp_path: Path):
    assert data_words(factory.report(tmp_path, factory.job(dataset=source), 0)).startswith(words)
