"""How long calibrating a quantised network takes, and how far its outputs move.

A DeiT-S-shaped network at 224 pixels is calibrated on images of noise with each quantiser, W8A8, fresh each time.
Printed are seconds on the clock, seconds of all processors (to judge by on a shared machine), and the relative
error of the logits on other images. The search as published is timed on request.
Run: ``python benchmarks/calibration.py [--threads N] [--images N] [--full]``.
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any

import torch
from torch import Tensor

from vitsearch.candidate import Architecture, Precision
from vitsearch.compress import calibrate, insert_quantizers
from vitsearch.models import VisionTransformer, build_dense

BATCH = 32
CASES: dict[str, dict[str, Any]] = {
    "uniform": {"quantizer": "uniform"},
    "asymmetric": {"quantizer": "asymmetric"},
    "auto_vit_acc": {"quantizer": "auto_vit_acc"},
    "ternary": {"quantizer": "ternary"},
    "repq": {"quantizer": "repq"},
    "mpq": {"quantizer": "mpq"},
    "noisy": {"quantizer": "uniform", "noisy": True},
    "twin": {"quantizer": "twin"},
    "twin, noisy": {"quantizer": "twin", "noisy": True},
}
FULL: dict[str, dict[str, Any]] = {"twin, full search": {"quantizer": "twin", "calibration": "hessian_full"}}


def network(image_size: int, depth: int) -> VisionTransformer:
    """Weights wide enough that attention is not uniform."""
    torch.manual_seed(0)
    shape = Architecture(
        image_size=image_size, in_chans=3, num_classes=1000, patch_size=16, depth=depth, width=384, heads=6
    )
    model = build_dense(shape).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(3)
    return model


def images(count: int, size: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, 3, size, size, generator=generator).split(BATCH))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--full", action="store_true", help="also the search as published, which takes long")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dense = network(options.size, options.depth)
    batches, others = images(options.images, options.size, 1), torch.cat(images(8, options.size, 2))
    expected = dense(others)
    print(f"DeiT-S shape, {options.images} images of {options.size} px, {options.threads} thread(s), W8A8")
    for name, settings in (CASES | (FULL if options.full else {})).items():
        model = copy.deepcopy(dense)
        insert_quantizers(model, Precision(weight_bits=8, activation_bits=8, **settings)).eval()
        started, busy = time.perf_counter(), time.process_time()
        calibrate(model, batches)
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        error = ((model(others) - expected).square().mean() / expected.var()).item()
        print(f"{name:18s} {seconds:7.1f} s ({busy:.1f} s of processors)   relative error {error:.2g}", flush=True)


if __name__ == "__main__":
    main()
