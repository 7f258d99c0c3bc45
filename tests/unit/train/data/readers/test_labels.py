from __future__ import annotations

import numpy as np
import pytest

from vitsearch.errors import InputError
from vitsearch.train.data.readers.labels import encode_labels


def test_numbers_sort_as_numbers() -> None:
    encoded, names = encode_labels({"y": np.array([10, 9, 100, 9])}, None, where="f")
    assert names == ("9", "10", "100")
    assert encoded["y"].tolist() == [1, 0, 2, 0]
    assert encoded["y"].dtype == np.int64


def test_a_class_missing_from_a_later_part_keeps_its_index() -> None:
    encoded, _ = encode_labels({"y": np.array(["a", "b", "c"]), "z": np.array(["c"])}, None, where="f")
    assert encoded["z"].tolist() == [2]


def test_names_that_no_label_uses_stay_classes() -> None:
    encoded, names = encode_labels({"y": np.array([2, 0], np.uint8)}, ("a", "b", "c"), where="f")
    assert names == ("a", "b", "c")
    assert encoded["y"].tolist() == [2, 0]


@pytest.mark.parametrize("bad", [-1, 3])
def test_labels_outside_the_names(bad: int) -> None:
    with pytest.raises(InputError, match=rf"f: y: must hold labels from 0 to 2.*\[{bad}\]"):
        encode_labels({"y": np.array([0, bad])}, ("a", "b", "c"), where="f")


def test_a_later_part_with_strings_where_training_has_numbers() -> None:
    with pytest.raises(InputError, match="f: z"):
        encode_labels({"y": np.array([0, 1]), "z": np.array(["0", "1"])}, None, where="f")
