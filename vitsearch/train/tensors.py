"""A data set as tensors on one device, sharing memory with the arrays it came from where it can."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vitsearch.train.augment import normalize
from vitsearch.train.data import ImageData


class TensorData:
    """Images and labels ready for indexing.

    On a CPU the images share the memory of ``data`` (which may be read-only and belong to Ray's object store); on
    an accelerator they are copied there once.

    Args:
        data: The decoded data set.
        device: Where training runs.
    """

    def __init__(self, data: ImageData, device: torch.device) -> None:
        self.source = data
        self.device = device
        with warnings.catch_warnings():
            # The array is read-only on purpose: it is shared between processes and never written.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.images_NHWC = torch.from_numpy(data.images_NHWC).to(device)
            self.labels_N = torch.from_numpy(data.labels_N).to(device)
        self.mean = torch.tensor(data.mean, dtype=torch.float32, device=device)
        self.std = torch.tensor(data.std, dtype=torch.float32, device=device)

    def raw(self, indices: Tensor) -> Tensor:
        """uint8 images (B, C, H, W)."""
        return self.images_NHWC[indices.to(self.device)].permute(0, 3, 1, 2)

    def normalized(self, indices: Tensor) -> Tensor:
        """float32 images (B, C, H, W), zero mean and unit deviation over the training split."""
        return normalize(self.raw(indices).contiguous(), self.mean, self.std)


def indices_of(data: ImageData, split: str) -> npt.NDArray[np.int64]:
    """Index array of ``train``, ``val`` or ``test``."""
    return {"train": data.train, "val": data.val, "test": data.test}[split]
