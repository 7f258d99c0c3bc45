"""Every post-training technique over its strength, on real images: accuracy against EER, and against latency.

One ViT is trained on CIFAR-10 photographs (about ten minutes on two cores), then compressed in every way the
tables know, without fine-tuning: techniques that learn are not here. EER is relative to the trained network
itself; where images decide how many tokens stay, it is the mean over the test images. A simulated bit-width and
zeros among the weights have no latency of their own. Writes ``techniques.csv``, ``techniques.md`` and
``techniques.png``.
Run: ``python benchmarks/techniques.py cifar10_20k.npz [--out docs] [--work FOLDER] [--epochs N]``.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

from vitsearch.candidate import Architecture, Candidate
from vitsearch.compress import metered
from vitsearch.config import RECIPES, DatasetSpec, EerSpec, ReferenceSpec, TargetSpec, TrainSpec
from vitsearch.cost import Tokens, cost_of, eer_pct, measured_cost
from vitsearch.messages import EpochReport, ProfileRequest, TrialRequest
from vitsearch.profile import run_profile
from vitsearch.train.autocast import fastest_autocast
from vitsearch.train.data import load_dataset
from vitsearch.train.evaluate import evaluate
from vitsearch.train.tensors import TensorData
from vitsearch.trial import TrialContext, load_model, run_trial, save_model
from vitsearch.trial.run import compress

ARCHITECTURE = Architecture(
    image_size=32, in_chans=3, num_classes=10, patch_size=4, depth=6, width=128, heads=4, mlp_ratio=4.0
)
BATCH = 8
THESIS = {"ats": "baseline", "entropy": "diversity", "cls_attention": "average"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One compressed model."""

    family: str
    technique: str
    strength: str
    accuracy_pct: float
    eer_pct: float
    macs_m: float
    params_m: float
    size_mb: float
    latency_ms_p50: float | None


def sweep() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Family, technique, strength and the parts of each candidate."""
    yield "dense", "dense", "", {}
    for r in (2, 4, 6, 8):
        yield "tokens", "tome", f"r={r}", {"tokens": {"reducer": "tome", "r": r}}
    for keep in (0.9, 0.7, 0.5, 0.3):
        yield "tokens", "evit", f"keep={keep}", {"tokens": {"reducer": "evit", "keep": keep}}
        for score in ("cls_attention", "attention_to_cls", "attention_received", "ats", "entropy", "magnitude"):
            tokens = {"reducer": "topk", "keep": keep, "score": score}
            yield "scores", f"topk {score}", f"keep={keep}", {"tokens": tokens}
    for tau in (0.004, 0.008, 0.012, 0.016):
        yield "tokens", "threshold", f"tau={tau}", {"tokens": {"reducer": "threshold", "tau": tau}}
    for samples in (64, 48, 32, 16):
        yield "tokens", "ats", f"n={samples}", {"tokens": {"reducer": "ats", "samples": samples}}
    for cosine in (0.9, 0.8, 0.7, 0.6):
        yield (
            "tokens",
            "similarity_pool",
            f"cos={cosine}",
            {"tokens": {"reducer": "similarity_pool", "cosine": cosine}},
        )
    for epsilon in (0.002, 0.01, 0.03, 0.1):
        yield "tokens", "ps_vit", f"eps={epsilon}", {"tokens": {"reducer": "ps_vit", "epsilon": epsilon}}
    for r in (6, 10, 14, 18):
        yield "tokens", "ppt", f"r={r}", {"tokens": {"reducer": "ppt", "r": r}}
    units, heads = ARCHITECTURE.mlp_units, ARCHITECTURE.heads
    yield "pruning", "2:4", "", {"sparsity": {"mask": "2:4"}}
    for zeros in (0.3, 0.5, 0.7):
        mask = {"mask": "unstructured", "zeros": zeros}
        yield "pruning", "unstructured", f"{zeros:.0%} zeros", {"sparsity": mask}
    for ratio in (0.9, 0.8, 0.7):
        for method in ("taylor", "nvit"):
            sparsity = {"method": method, "macs_ratio": ratio}
            yield "pruning", f"{method} budget", f"{ratio:.0%} of MACs", {"sparsity": sparsity}
    for method in ("random", "magnitude", "taylor"):
        for share in (0.1, 0.2, 0.3, 0.5):
            kept = round(units * (1 - share))
            yield "pruning", f"{method} mlp", f"-{share:.0%}", {"sparsity": {"method": method, "mlp_units": kept}}
        yield "pruning", f"{method} heads", f"-1 of {heads}", {"sparsity": {"method": method, "heads": heads - 1}}
    for quantizer in ("uniform", "asymmetric", "twin", "mpq", "repq"):
        for bits in (8, 6, 5, 4):
            precision = {"quantizer": quantizer, "weight_bits": bits, "activation_bits": bits}
            yield "bits", quantizer, f"W{bits}A{bits}", {"precision": precision}
    for bits in (8, 6, 4):
        precision = {"weight_bits": bits, "activation_bits": bits, "noisy": True}
        yield "bits", "uniform + noise", f"W{bits}A{bits}", {"precision": precision}
    yield (
        "combined",
        "tome + mlp + W8A8",
        "",
        {
            "tokens": {"reducer": "tome", "r": 4},
            "sparsity": {"method": "magnitude", "mlp_units": round(units * 0.8)},
            "precision": {"weight_bits": 8, "activation_bits": 8},
        },
    )


def trained(data: TensorData, work: Path, epochs: int) -> Path:
    """The folder of the dense network, trained if it is not there."""
    folder = work / f"dense-{epochs}"
    if (folder / "model.safetensors").exists():
        return folder
    mode = fastest_autocast(ARCHITECTURE, 128, data.device)
    recipe = RECIPES["augreg_light"].model_copy(update={"epochs": epochs, "autocast": mode, "early_stop": False})
    request = request_for(Candidate(architecture=ARCHITECTURE), data, folder, recipe)
    started = time.perf_counter()

    def report(epoch: EpochReport) -> None:
        if epoch.epoch % 5 == 0 and epoch.accuracy is not None:
            seconds = time.perf_counter() - started
            print(f"epoch {epoch.epoch}/{epochs}: {epoch.accuracy:.1%} on the validation split, {seconds:.0f} s")

    print(run_trial(request, TrialContext(data=data, on_epoch=report)))
    return folder


def request_for(candidate: Candidate, data: TensorData, folder: Path, recipe: TrainSpec) -> TrialRequest:
    return TrialRequest(
        trial=0, candidate=candidate, train=recipe, seed=0, data_fingerprint=data.source.fingerprint,
        artifact_dir=str(folder),
    )  # fmt: skip


def measure(
    parts: dict[str, Any], data: TensorData, dense_folder: Path, work: Path, eer: EerSpec
) -> dict[str, Any]:
    """Accuracy on the test split, cost and latency of one candidate."""
    candidate = Candidate.model_validate({"architecture": ARCHITECTURE, **parts}).canonical()
    dense = load_model(Candidate(architecture=ARCHITECTURE), dense_folder)
    recipe = TrainSpec(autocast="fp32", finetune_epochs=0)
    model = compress(dense, candidate, request_for(candidate, data, work, recipe), TrialContext(data=data))
    with metered(model) as meter:
        accuracy = evaluate(model, data, data.source.test, batch_size=250).accuracy
    a, tokens = candidate.pruned_architecture, None
    if candidate.tokens.cost_kind != "exact":
        tokens = Tokens(*meter.per_block(a.num_tokens, a.depth))
    known = cost_of(candidate)
    cost = known if known.kind == "exact" else known.after(measured_cost(candidate, model.widths, tokens))
    latency = None
    if candidate.precision.is_float32 and candidate.sparsity.mask == "none":
        save_model(model, candidate, work / "profiled")
        target = TargetSpec(batch_size=BATCH, repeats=20)
        request = ProfileRequest(trial=0, artifact_dir=str(work / "profiled"), candidate=candidate, target=target)
        latency = run_profile(request, model, data).latency_ms_p50
    return {
        "accuracy_pct": 100 * accuracy,
        "eer_pct": eer_pct(cost.eer_values(), eer),
        "macs_m": cost.num_macs / 1e6,
        "params_m": cost.num_params / 1e6,
        "size_mb": cost.size_mb,
        "latency_ms_p50": latency,
    }


def write_table(rows: list[Row], out: Path, epochs: int, images: int) -> None:
    names = [field.name for field in dataclasses.fields(Row)]
    with (out / "techniques.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            writer.writerow(["" if value is None else value for value in dataclasses.astuple(row)])
    lines = [
        "# Techniques after training, on photographs",
        "",
        f"One ViT ({ARCHITECTURE.depth} blocks, width {ARCHITECTURE.width}, patch {ARCHITECTURE.patch_size}),",
        f"trained for {epochs} epochs on {images:,} CIFAR-10 images, then compressed without fine-tuning.",
        "Accuracy on the test split; EER relative to this network; latency of PyTorch on one thread, batch 8",
        "(none for simulated bits).",
        "Each latency is measured once, in the order of the table: small differences say nothing.",
        f"Made by `python benchmarks/techniques.py cifar10_20k.npz --epochs {epochs} --out docs`.",
        "",
        "![Accuracy against EER and latency](techniques.png)",
        "",
        "| technique | strength | accuracy % | EER % | M MACs | M params | MB | ms p50 |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        latency = "" if row.latency_ms_p50 is None else f"{row.latency_ms_p50:.1f}"
        lines.append(
            f"| {row.technique} | {row.strength} | {row.accuracy_pct:.1f} | {row.eer_pct:.1f} | "
            f"{row.macs_m:.0f} | {row.params_m:.2f} | {row.size_mb:.2f} | {latency} |"
        )
    lines += ["", "## The three scores of the thesis", "", *thesis_lines(rows)]
    (out / "techniques.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def thesis_lines(rows: list[Row]) -> list[str]:
    """Their order by mean accuracy over all keep rates, beside the published one."""
    means = {}
    for score, name in THESIS.items():
        found = [row.accuracy_pct for row in rows if row.technique == f"topk {score}"]
        if found:
            means[name] = sum(found) / len(found)
    if not means:
        return []
    order = sorted(means, key=lambda name: -means[name])
    return [
        "Kept patches ranked by each score, mean accuracy over the keep rates: "
        + ", ".join(f"{name} {means[name]:.1f} %" for name in order)
        + ". Published on CIFAR-100 with DeiT-S: baseline 65.3 %, diversity 63.4 %, average 62.6 %."
    ]


def draw(rows: list[Row], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6), sharey=True, layout="constrained")
    colours = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    techniques = list(dict.fromkeys(row.technique for row in rows if row.family != "dense"))
    dense = next(row for row in rows if row.family == "dense")
    for number, technique in enumerate(techniques):
        mine = [row for row in rows if row.technique == technique]
        style = {"color": colours[number % 20], "marker": "os^Dv"[number // 20], "markersize": 5, "linewidth": 1}
        mine.sort(key=lambda row: row.eer_pct)
        left.plot([r.eer_pct for r in mine], [r.accuracy_pct for r in mine], label=technique, **style)
        timed = sorted((r.latency_ms_p50, r.accuracy_pct) for r in mine if r.latency_ms_p50 is not None)
        if timed:
            right.plot(*zip(*timed, strict=True), **style)
    left.plot(dense.eer_pct, dense.accuracy_pct, "k*", markersize=12, label="dense")
    right.plot(dense.latency_ms_p50, dense.accuracy_pct, "k*", markersize=12)
    left.set(xlabel="EER % of the dense network", ylabel="test accuracy %")
    right.set(xlabel=f"latency ms, batch {BATCH}, one thread, PyTorch float32")
    for axes in (left, right):
        axes.grid(visible=True, alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="cifar10_20k.npz")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--work", type=Path, default=Path("runs/techniques"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = load_dataset(DatasetSpec(kind="npz", path=options.images), image_size=32, seed=0)
    data = TensorData(images, torch.device("cpu"))
    dense = trained(data, options.work, options.epochs)
    if options.train_only:
        return
    whole = cost_of(Candidate(architecture=ARCHITECTURE))
    reference = ReferenceSpec(
        name="dense", params_m=whole.num_params / 1e6, flops_g=whole.num_macs / 1e9, bits=32, size_mb=whole.size_mb
    )
    rows = []
    for family, technique, strength, parts in sweep():
        found = measure(parts, data, dense, options.work, EerSpec(reference=reference))
        rows.append(Row(family=family, technique=technique, strength=strength, **found))
        print(f"{technique:24s} {strength:10s} {rows[-1].accuracy_pct:5.1f} %  EER {rows[-1].eer_pct:5.1f} %")
    options.out.mkdir(parents=True, exist_ok=True)
    write_table(rows, options.out, options.epochs, len(data.source.train))
    draw(rows, options.out / "techniques.png")
    print("\n".join(thesis_lines(rows)))


if __name__ == "__main__":
    main()
