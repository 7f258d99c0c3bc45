"""Augmentation on batches of image tensors; nothing is decoded or copied one image at a time.

Shape suffixes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitsearch.config import TrainSpec

RANDAUGMENT_GROUPS = 8
THREE_AUGMENT_GROUPS = 24


class Augmenter:
    """Geometric and colour augmentation of uint8 batches, then normalisation and erasing.

    RandAugment draws its operations once per group of images, not per image: an eighth of a batch shares them.
    All randomness comes from torch's global generator.

    Args:
        spec: Strengths.
        mean: Per channel, on a 0..1 scale.
        std: Per channel.
    """

    def __init__(self, spec: TrainSpec, mean: Tensor, std: Tensor) -> None:
        self.spec = spec
        self.mean, self.std = mean, std
        self._one_of_three = _three_augment() if spec.three_augment else None
        self._randaugment = None
        if spec.randaugment_ops:
            from torchvision.transforms import v2

            self._randaugment = v2.RandAugment(spec.randaugment_ops, spec.randaugment_magnitude)

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Augment and normalise; uint8 in, float32 out."""
        x = images_BCHW
        if self.spec.flip:
            flip_B = torch.rand(len(x), device=x.device) < self.spec.flip
            x = torch.where(flip_B[:, None, None, None], x.flip(-1), x)
        if self.spec.crop_padding_px:
            x = random_crop(x, self.spec.crop_padding_px)
        if self._one_of_three is not None:
            x = torch.cat([self._one_of_three(group) for group in x.chunk(THREE_AUGMENT_GROUPS)])
        if self._randaugment is not None:
            x = torch.cat([self._randaugment(group) for group in x.chunk(RANDAUGMENT_GROUPS)])
        x = normalize(x, self.mean, self.std)
        return random_erase(x, self.spec.erasing) if self.spec.erasing else x


def _three_augment() -> Callable[[Tensor], Tensor]:
    """One of grey-scale, solarisation and Gaussian blur, then colour jitter of 0.3.

    From DeiT III (Touvron et al., 2022, Section 3.3), but the choice is made once for each group of images. Grey
    images are jittered in brightness and contrast alone.
    """
    from torchvision.transforms import v2

    colour = v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3)
    plain = v2.ColorJitter(brightness=0.3, contrast=0.3)
    solarise, blur = v2.RandomSolarize(threshold=128, p=1.0), v2.GaussianBlur(kernel_size=3, sigma=(0.1, 2.0))

    def augment(group_BCHW: Tensor) -> Tensor:
        is_colour = group_BCHW.shape[1] == 3
        choice = int(torch.randint(3, ()))
        if choice == 0:
            grey = group_BCHW.float().mean(dim=1, keepdim=True).round().to(torch.uint8)
            group_BCHW = grey.expand_as(group_BCHW)
        else:
            group_BCHW = (solarise if choice == 1 else blur)(group_BCHW)
        jittered: Tensor = (colour if is_colour else plain)(group_BCHW)
        return jittered

    return augment


def normalize(images_BCHW: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(x / 255 - mean) / std as one multiply-add; uint8 in, float32 out."""
    scale = (1 / (255 * std)).view(1, -1, 1, 1)
    offset = (mean / std).view(1, -1, 1, 1)
    return images_BCHW.to(torch.float32).mul_(scale).sub_(offset)


def random_crop(images_BCHW: Tensor, padding_px: int) -> Tensor:
    """Shift every image by its own offset of up to ``padding_px``; the border repeats the edge pixels."""
    B, _, H, W = images_BCHW.shape
    span = torch.arange(2 * padding_px + 1)
    dy_B = torch.randint(len(span), (B,), device=images_BCHW.device) - padding_px
    dx_B = torch.randint(len(span), (B,), device=images_BCHW.device) - padding_px
    rows_BH = (torch.arange(H, device=images_BCHW.device) + dy_B[:, None]).clamp(0, H - 1)
    columns_BW = (torch.arange(W, device=images_BCHW.device) + dx_B[:, None]).clamp(0, W - 1)
    batch_B11 = torch.arange(B, device=images_BCHW.device)[:, None, None]
    shifted_BHWC = images_BCHW.permute(0, 2, 3, 1)[batch_B11, rows_BH[:, :, None], columns_BW[:, None, :]]
    return shifted_BHWC.permute(0, 3, 1, 2)


def random_erase(images_BCHW: Tensor, probability: float) -> Tensor:
    """Overwrite one rectangle of 2 % to 33 % of the area with noise in some images (Zhong et al., 2020)."""
    B, _, H, W = images_BCHW.shape
    device = images_BCHW.device
    area_B = torch.empty(B, device=device).uniform_(0.02, 0.33) * H * W
    aspect_B = torch.empty(B, device=device).uniform_(-1.2, 1.2).exp()
    height_B = (area_B * aspect_B).sqrt().clamp(1, H)
    width_B = (area_B / aspect_B).sqrt().clamp(1, W)
    top_B = torch.rand(B, device=device) * (H - height_B)
    left_B = torch.rand(B, device=device) * (W - width_B)
    y_H, x_W = torch.arange(H, device=device), torch.arange(W, device=device)
    rows_BH = (y_H >= top_B[:, None]) & (y_H < (top_B + height_B)[:, None])
    columns_BW = (x_W >= left_B[:, None]) & (x_W < (left_B + width_B)[:, None])
    chosen_B = torch.rand(B, device=device) < probability
    mask_B1HW = (rows_BH[:, :, None] & columns_BW[:, None, :] & chosen_B[:, None, None])[:, None]
    return torch.where(mask_B1HW, torch.randn_like(images_BCHW), images_BCHW)
