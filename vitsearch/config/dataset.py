"""Where the images come from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vitsearch.config.base import Place, Spec
from vitsearch.config.tables import DATASETS, DatasetName


class DatasetSpec(Spec):
    """A classification data set and how it is split and read.

    Images are decoded once, resized to the search space's image size and split with the job's seed: the
    validation and test shares are stratified. A data set with a test split of its own keeps it.

    Attributes:
        kind: Name in ``DATASETS``.
        path: Folder or file (``imagefolder``, ``npz``, the torchvision sets), or a data set folder for
            ``huggingface``. It may be an address, also of an archive, which is fetched once.
        name: Hub name of a ``huggingface`` data set.
        download: Whether torchvision may download into ``path``.
        in_chans: 1 or 3; by default what the images have.
        val_fraction: Share of the training images held out for validation.
        test_fraction: Share held out for the final test where the data set brings no test split.
        max_images: Upper bound of training images, stratified; for quick looks.
        on_broken_image: Skip a file that cannot be decoded (and name it), or stop.
        image_column: Column of a ``huggingface`` data set that holds the image.
        label_column: Column of a ``huggingface`` data set that holds the class.
    """

    kind: DatasetName
    path: Place | None = None
    name: str | None = None
    download: bool = False
    in_chans: Literal[1, 3] | None = None
    val_fraction: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    test_fraction: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    max_images: Annotated[int, Field(ge=20)] | None = None
    on_broken_image: Literal["skip", "error"] = "error"
    image_column: str = "image"
    label_column: str = "label"

    @model_validator(mode="after")
    def _source_is_named(self) -> Self:
        needs = DATASETS[self.kind].needs
        if needs and all(getattr(self, field) is None for field in needs):
            wanted = " or ".join(f"dataset.{field}" for field in needs)
            raise ValueError(f"dataset.kind={self.kind} needs {wanted}; say where the images are")
        if self.val_fraction + self.test_fraction >= 0.95:
            raise ValueError(
                f"val_fraction + test_fraction must leave images to train on, but got "
                f"{self.val_fraction} + {self.test_fraction}; lower one of them"
            )
        return self
