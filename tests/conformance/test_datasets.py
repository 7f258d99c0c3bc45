"""What every kind of data set promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitsearch.config import DATASETS, DatasetSpec, parse
from vitsearch.errors import InputError, MissingExtraError
from vitsearch.train.data import READERS, load_dataset

NEEDY = [name for name, kind in DATASETS.items() if kind.needs]
COMPLETE = [name for name, kind in DATASETS.items() if not kind.needs]


def test_every_kind_has_its_own_reader() -> None:
    assert list(READERS) == list(DATASETS)
    assert len({READERS[name] for name in DATASETS}) == len(DATASETS)


@pytest.mark.parametrize("name", NEEDY)
def test_what_it_cannot_do_without_is_asked_for(name: str) -> None:
    with pytest.raises(InputError, match=f"kind={name} needs dataset.{DATASETS[name].needs[0]}"):
        parse(DatasetSpec, {"kind": name}, where="job.yaml")


@pytest.mark.parametrize("name", NEEDY)
def test_a_path_that_is_not_there_is_one_clear_error(name: str, tmp_path: Path) -> None:
    with pytest.raises((InputError, MissingExtraError), match=r"missing|huggingface"):
        load_dataset(DatasetSpec(kind=name, path=tmp_path / "missing"), image_size=8, seed=0)


@pytest.mark.parametrize("name", COMPLETE)
def test_it_gives_square_images_and_the_same_split_for_a_seed(name: str) -> None:
    spec = DatasetSpec(kind=name, max_images=200)
    data, again = (load_dataset(spec, image_size=12, seed=3) for _ in range(2))
    assert data.images_NHWC.dtype == np.uint8
    assert data.images_NHWC.shape[1:] in {(12, 12, 1), (12, 12, 3)}
    assert set(data.labels_N) == set(range(len(data.class_names)))
    parts = [set(part) for part in (data.train, data.val, data.test)]
    assert all(parts)
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == len(data.labels_N)
    assert again.fingerprint == data.fingerprint
    assert load_dataset(spec, image_size=12, seed=4).fingerprint != data.fingerprint
