import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.export.factory import CANDIDATES, digits, exported
from vitsearch.export import Bundle
from vitsearch.train.data import ImageData


@pytest.fixture(scope="session")
def data() -> ImageData:
    return digits()


@pytest.fixture(scope="session")
def bundle_of(data: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """One bundle of each candidate, made on first use; tests must not change it."""
    made: dict[str, Bundle] = {}

    def make(name: str) -> Bundle:
        if name not in made:
            made[name] = exported(CANDIDATES[name], data, tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.fixture
def folder(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(bundle_of("dense").folder, tmp_path / "bundle"))
