import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from tests.unit.report import factory
from vitsearch.report import StudyReport, palette
from vitsearch.report.axes import published
from vitsearch.report.plots import front_html, save_front_png
from vitsearch.report.tables import front_table

JOBS: dict[str, dict[str, Any]] = {
    "two": {},
    "infeasible": {"constraints": [{"metric": "accuracy", "min": 0.85}]},
    "nothing feasible": {"constraints": [{"metric": "accuracy", "min": 1}]},
    "three": {"objectives": ["accuracy", "eer", "latency"]},
    "no accuracy": {"objectives": ["eer", "macs"]},
    "both large": {"objectives": ["throughput", "accuracy"]},
    "published": {"eer": {"metrics": ["params", "macs"]}},
    "published, cost first": {"objectives": ["eer", "accuracy"], "eer": {"metrics": ["params", "macs"]}},
    "weighted": {"eer": {"weights": [0.4, 0.2, 0.2, 0.2]}},
}


def without_library(page: str) -> str:
    """The page without plotly.js itself, whose five megabytes hold all kinds of words."""
    return re.sub(r"<script[^>]*>\s*/\*\*.*?</script>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize("name", JOBS)
def test_every_study_has_a_picture_and_a_page(name: str, tmp_path: Path):
    report = factory.report(tmp_path, factory.job(**JOBS[name]), 30)
    save_front_png(report, tmp_path / "front.png", landmarks=True)
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.size == (1200, 800)
        assert sum(count > 0 for count in picture.convert("L").histogram()) > 20
    page = without_library(front_html(report, landmarks=True))
    assert ("published, ImageNet-1k" in page) == bool(published(report))
    assert bool(published(report)) == (name not in {"three", "no accuracy", "both large"})
    assert ("knee · trial" in page or "knee \\u00b7 trial" in page) == bool(report.front)
    assert page.count('<div id="figure') == (2 if name == "three" else 1)


def landmark_pixels(picture: Path) -> int:
    """Pixels in the colour of published models on white, which nothing else has."""
    wanted = 0.35 * np.array(ImageColor.getrgb(palette.LANDMARK)) + 0.65 * 255
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=float)
    return int((np.abs(pixels - wanted).max(axis=-1) <= 2).sum())


@pytest.mark.parametrize("name", ["published", "published, cost first"])
def test_published_models_are_drawn_when_asked_for(name: str, tmp_path: Path):
    report = factory.report(tmp_path, factory.job(**JOBS[name]), 30)
    save_front_png(report, tmp_path / "with.png", landmarks=True)
    save_front_png(report, tmp_path / "without.png")
    assert len(published(report)) > 50
    assert landmark_pixels(tmp_path / "with.png") > 10 * len(published(report))
    assert landmark_pixels(tmp_path / "without.png") == 0


def test_an_empty_study_says_so(tmp_path: Path):
    report = factory.report(tmp_path, None, 0)
    save_front_png(report, tmp_path / "front.png")
    assert "The front is empty" in front_html(report)


def test_a_front_of_one(tmp_path: Path):
    report = factory.report(tmp_path, factory.job(objectives=["accuracy", "eer", "latency"]), 1)
    save_front_png(report, tmp_path / "front.png")
    assert front_html(report).count('<div id="figure') == 1


def test_the_page_opens_without_a_network(tmp_path: Path):
    page = front_html(factory.report(tmp_path, None, 20))
    assert "published" not in without_library(page)
    assert len(page) > 3_000_000
    assert "plotly.js v" in page
    assert not re.search(r"<script[^>]+src\s*=", without_library(page))
    assert not re.search(r"<link\b", without_library(page))
    assert '"showSendToCloud": false' in page


def test_hovering_shows_number_candidate_and_figures(tmp_path: Path):
    report = factory.report(tmp_path, None, 20)
    page = without_library(front_html(report))
    for trial in report.front:
        assert f"trial {trial.number}" in page
        assert trial.candidate.summary().split(" · ")[0] in page
    assert "FLOPs (MACs): " in page
    assert "accuracy (%) \\u2191" in page or "accuracy (%) ↑" in page


def test_words_from_the_job_cannot_break_the_page(tmp_path: Path):
    job = factory.job(eer={"reference": {"name": "<script>alert(1)</script> $\\frac{1}{0}$"}})
    report = factory.report(tmp_path, job, 5)
    assert "<script>alert(1)" not in front_html(report)
    save_front_png(report, tmp_path / "front.png")


def test_the_page_lists_the_front(tmp_path: Path):
    report = factory.report(tmp_path, None, 20)
    page = front_html(report)
    heading, rows = front_table(report)
    assert page.count("<tr") == 1 + len(rows)
    assert all(f"<th>{cell}</th>" in page for cell in heading)


def test_many_members_are_labelled_without_overlap(tmp_path: Path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from vitsearch.report import picture

    report = factory.report(tmp_path, factory.job(objectives=["accuracy", "macs"]), 150)
    assert isinstance(report, StudyReport)
    figure = Figure(figsize=(12, 8), dpi=100)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0.1, 0.1, 0.8, 0.7))
    picture._scatter(figure, ax, canvas, report, landmarks=False)
    renderer = canvas.get_renderer()
    labels = [text for text in ax.texts if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in labels]
    assert any(text.get_text().startswith("knee · trial") for text in labels)
    assert len(labels) > len(report.front) / 2
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
