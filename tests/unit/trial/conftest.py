"""Real images for trials."""

from __future__ import annotations

import pytest

from tests.unit.train.factory import CPU
from vitsearch.config import DatasetSpec
from vitsearch.train.data import load_dataset
from vitsearch.train.tensors import TensorData


@pytest.fixture(scope="session")
def digits() -> TensorData:
    return TensorData(load_dataset(DatasetSpec(kind="digits"), image_size=8, seed=0), CPU)
