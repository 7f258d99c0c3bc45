"""One reader per kind of data set, by its name in ``vitsearch.config.tables``."""

from __future__ import annotations

from collections.abc import Mapping

from vitsearch.config import DATASETS
from vitsearch.config.named import Imported
from vitsearch.train.data.readers.raw import RawImages, RawPart, Reader

READERS: Mapping[str, Reader] = Imported(DATASETS, lambda kind: kind.reader)

__all__ = ["READERS", "RawImages", "RawPart", "Reader"]
