"""A job made from a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vitsearch.cli.folder_job import job_of_folder
from vitsearch.report.extremes import eer_range
from vitsearch.space import SearchSpace, load_preset


def test_eer_compares_with_the_costliest_member_of_the_space(tmp_path: Path):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(tmp_path / name / "a.png")
    job = job_of_folder(tmp_path)
    assert job.eer.reference.name == "costliest vit_micro_8"
    space = SearchSpace(load_preset("vit_micro_8"), in_chans=3, num_classes=2)
    ends = eer_range(space, job.eer)
    assert ends.high_pct == 100
    assert ends.low_pct < 20


def test_images_behind_links_are_looked_at(tmp_path: Path):
    for name in ("cats", "dogs"):
        (tmp_path / "store" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(tmp_path / "store" / name / "a.png")
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / name).symlink_to(tmp_path / "store" / name)
    assert job_of_folder(tmp_path / "images").space.preset == "vit_micro_8"
