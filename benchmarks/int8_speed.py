"""Real 8-bit inference beside the same network in floating point, in turns in one run.

A DeiT-S-shaped network, batch 8: PyTorch in float32 and bfloat16, ONNX Runtime in float32, with dynamic and with
static int8. Medians of the rounds' ratios to PyTorch float32 are printed with their range, then the fastest of
those that execute what they claim, for each number of threads. Run: ``python benchmarks/int8_speed.py [--rounds N]
[--threads 1 2]``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vitsearch.candidate import Architecture
from vitsearch.models import build_dense
from vitsearch.onnx import OnnxModel, export_onnx
from vitsearch.onnx.int8 import quantize_dynamic_int8, quantize_static_int8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--depth", type=int, default=12)
    options = parser.parse_args()
    torch.manual_seed(0)
    shape = Architecture(
        image_size=224, in_chans=3, num_classes=1000, patch_size=16, depth=options.depth, width=384, heads=6
    )
    model = build_dense(shape).eval()
    images = torch.randn(options.batch, 3, 224, 224)
    array = images.numpy()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {kind: folder / f"{kind}.onnx" for kind in ("fp32", "int8 dynamic", "int8 static")}
        export_onnx(model, files["fp32"], in_chans=3, image_size=224)
        quantize_dynamic_int8(files["fp32"], files["int8 dynamic"])
        quantize_static_int8(files["fp32"], files["int8 static"], [array])
        with torch.inference_mode():
            exact = model(images).numpy()
        for threads in options.threads:
            torch.set_num_threads(threads)
            calls: dict[str, Callable[[], np.ndarray]] = {
                "pytorch fp32": lambda: _torch(model, images, torch.float32),
                "pytorch bf16": lambda: _torch(model, images, torch.bfloat16),
            }
            for kind, file in files.items():
                session = OnnxModel(file, threads=threads)
                calls[f"onnxruntime {kind}"] = lambda session=session: session(array)
            _report(calls, exact, options.rounds, threads, options.batch)


def _torch(model: torch.nn.Module, images: torch.Tensor, dtype: torch.dtype) -> np.ndarray:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        return model(images).float().numpy()


def _report(
    calls: dict[str, Callable[[], np.ndarray]], exact: np.ndarray, rounds: int, threads: int, batch: int
) -> None:
    errors = {name: np.square(call() - exact).mean() / exact.var() for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    print(f"DeiT-S shape, batch {batch}, {threads} thread(s), {rounds} rounds in turns")
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(seconds["pytorch fp32"], times, strict=True)]
        print(
            f"{name:26s} {batch / statistics.median(times):6.1f} img/s  {statistics.median(ratios):.2f}x "
            f"({min(ratios):.2f}-{max(ratios):.2f})  relative error {errors[name]:.2g}"
        )
    fastest = min(seconds, key=lambda name: statistics.median(seconds[name]))
    print(f"fastest with {threads} thread(s): {fastest}", flush=True)


if __name__ == "__main__":
    main()
