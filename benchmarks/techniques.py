"""Every post-training technique over its strength, on real images: accuracy against EER, and against latency.

One ViT is trained on CIFAR-10 photographs (about ten minutes on two cores), then compressed in every way the
tables know, without fine-tuning: techniques that learn are not here. EER is relative to the trained network
itself; where images decide how many tokens stay, it is the mean over the test images. A simulated bit-width and
zeros among the weights have no latency of their own; all other networks are timed in turns, so that what else the
machine does falls on each of them, and compared with the dense one of the same turn. Writes ``techniques.csv``,
``techniques.md`` and ``techniques.png``.
Run: ``python benchmarks/techniques.py cifar10_20k.npz [--out docs] [--work FOLDER] [--epochs N]``.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from vitsearch.candidate import Architecture, Candidate
from vitsearch.compress import metered
from vitsearch.config import RECIPES, DatasetSpec, EerSpec, ReferenceSpec, TrainSpec
from vitsearch.cost import Tokens, cost_of, eer_pct, measured_cost
from vitsearch.messages import EpochReport, TrialRequest
from vitsearch.profile.facts import processor_name
from vitsearch.train.autocast import fastest_autocast
from vitsearch.train.data import load_dataset
from vitsearch.train.evaluate import evaluate
from vitsearch.train.tensors import TensorData
from vitsearch.trial import TrialContext, load_model, run_trial
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
    latency_ms_p50: float | None = None
    speed_up: float | None = None


def sweep() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Family, technique, strength and the parts of each candidate."""
    yield "dense", "dense", "", {}
    for technique, strength, tokens in token_sweep():
        yield "tokens", technique, strength, {"tokens": tokens}
    for technique, strength, sparsity in sparsity_sweep():
        yield "pruning", technique, strength, {"sparsity": sparsity}
    for technique, strength, precision in precision_sweep():
        yield "bits", technique, strength, {"precision": precision}
    mlp = {"method": "magnitude", "mlp_units": round(ARCHITECTURE.mlp_units * 0.8)}
    eight = {"weight_bits": 8, "activation_bits": 8}
    yield (
        "bits", "tome + mlp + W8A8", "",
        {"tokens": {"reducer": "tome", "r": 4}, "sparsity": mlp, "precision": eight},
    )  # fmt: skip


def token_sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Technique, strength and settings of each token reducer that needs no training."""
    for r in (2, 4, 6, 8):
        yield "tome", f"r={r}", {"reducer": "tome", "r": r}
    for r in (6, 10, 14, 18):
        yield "ppt", f"r={r}", {"reducer": "ppt", "r": r}
    for keep in (0.9, 0.7, 0.5, 0.3):
        for reducer in ("evit", "tps", "spvit", "token_pooling", "evo"):
            yield reducer, f"keep={keep}", {"reducer": reducer, "keep": keep}
        for score in ("cls_attention", "attention_to_cls", "attention_received", "ats", "entropy", "magnitude"):
            yield f"topk {score}", f"keep={keep}", {"reducer": "topk", "keep": keep, "score": score}
        yield "topk merged", f"keep={keep}", {"reducer": "topk", "keep": keep, "rest": "merge"}
    for count in (2, 4, 6, 8):
        yield "diffrate", f"{count} + {count}", {"reducer": "diffrate", "prune": count, "merge": count}
    for tau in (0.004, 0.008, 0.012, 0.016):
        yield "threshold", f"tau={tau}", {"reducer": "threshold", "tau": tau}
    for samples in (64, 48, 32, 16):
        yield "ats", f"n={samples}", {"reducer": "ats", "samples": samples}
    for cosine in (0.9, 0.8, 0.7, 0.6):
        yield "similarity_pool", f"cos={cosine}", {"reducer": "similarity_pool", "cosine": cosine}
    for epsilon in (0.002, 0.01, 0.03, 0.1):
        yield "ps_vit", f"eps={epsilon}", {"reducer": "ps_vit", "epsilon": epsilon}
    for block in (5, 4, 3, 2):
        yield "grid_pool", f"block {block}", {"reducer": "grid_pool", "grid": 2, "blocks": (block,)}


def sparsity_sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Technique, strength and settings of each mask, and of each ranking that needs no training."""
    a = ARCHITECTURE
    yield "2:4", "", {"mask": "2:4"}
    for zeros in (0.3, 0.5, 0.7):
        yield "unstructured", f"{zeros:.0%} zeros", {"mask": "unstructured", "zeros": zeros}
    for ratio in (0.9, 0.8, 0.7):
        for method in ("taylor", "nvit"):
            yield f"{method} budget", f"{ratio:.0%} of MACs", {"method": method, "macs_ratio": ratio}
    for method in ("random", "magnitude", "taylor"):
        for share in (0.1, 0.2, 0.3, 0.5):
            yield (
                f"{method} mlp",
                f"-{share:.0%}",
                {"method": method, "mlp_units": round(a.mlp_units * (1 - share))},
            )
        yield f"{method} heads", f"-1 of {a.heads}", {"method": method, "heads": a.heads - 1}
        yield f"{method} qk", "-25%", {"method": method, "qk_dim": round(0.75 * a.head_dim)}
        yield f"{method} v", "-25%", {"method": method, "v_dim": round(0.75 * a.head_dim)}
        yield f"{method} channels", "-10%", {"method": method, "width": round(0.9 * a.width)}
        yield f"{method} blocks", f"-1 of {a.depth}", {"method": method, "blocks": a.depth - 1}


def precision_sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Technique, strength and settings of each quantiser and calibration that needs no training."""

    def both(bits: int) -> dict[str, Any]:
        return {"weight_bits": bits, "activation_bits": bits}

    for quantizer in ("uniform", "asymmetric", "twin", "mpq", "repq", "auto_vit_acc"):
        for bits in (8, 6, 5, 4):
            yield quantizer, f"W{bits}A{bits}", {"quantizer": quantizer, **both(bits)}
    for calibration in ("percentile", "mse", "blockwise", "hessian"):
        for bits in (8, 6, 5, 4):
            yield f"uniform, {calibration}", f"W{bits}A{bits}", {"calibration": calibration, **both(bits)}
    for bits in (6, 4):
        full = {"quantizer": "twin", "calibration": "hessian_full", **both(bits)}
        yield "twin, full search", f"W{bits}A{bits}", full
    for bits in (8, 6, 5, 4):
        yield "uniform + noise", f"W{bits}A{bits}", {"noisy": True, **both(bits)}
    for bits in (5, 4, 3, 2):
        yield "uniform weights", f"W{bits}", {"weight_bits": bits}
        yield "uniform weights, mixed", f"W{bits}", {"weight_bits": bits, "mixed": True}


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
) -> tuple[dict[str, Any], torch.nn.Module | None]:
    """Accuracy on the test split and cost of one candidate; and its network, if there is a latency to it."""
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
    found = {
        "accuracy_pct": 100 * accuracy,
        "eer_pct": eer_pct(cost.eer_values(), eer),
        "macs_m": cost.num_macs / 1e6,
        "params_m": cost.num_params / 1e6,
        "size_mb": cost.size_mb,
    }
    return found, model if candidate.precision.is_float32 and candidate.sparsity.mask == "none" else None


@torch.inference_mode()
def timed(rows: list[Row], models: list[torch.nn.Module | None], images_BCHW: Tensor, rounds: int) -> list[Row]:
    """The rows with their latencies; the first model is the dense one."""
    torch.set_num_threads(1)
    found: list[list[float]] = [[] for _ in rows]
    for _ in range(rounds):
        for place, model in enumerate(models):
            if model is not None:
                model(images_BCHW)
                found[place].append(statistics.median(call_ms(model, images_BCHW) for _ in range(3)))
    return [
        dataclasses.replace(
            row,
            latency_ms_p50=statistics.median(mine),
            speed_up=statistics.median(whole / own for whole, own in zip(found[0], mine, strict=True)),
        )
        if mine
        else row
        for row, mine in zip(rows, found, strict=True)
    ]


def call_ms(model: torch.nn.Module, images_BCHW: Tensor) -> float:
    started = time.perf_counter()
    model(images_BCHW)
    return 1000 * (time.perf_counter() - started)


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
        "Accuracy on the test split; EER relative to this network; latency of PyTorch on one thread, batch",
        f"{BATCH} (none for simulated bits and for zeros among the weights), measured in turns: the median of all",
        f"turns, and the median of how much faster than the dense network of the same turn. {processor_name()}.",
        f"Made by `python benchmarks/techniques.py cifar10_20k.npz --epochs {epochs} --out docs`.",
        "",
        "![Accuracy against EER and latency](techniques.png)",
        "",
        "| technique | strength | accuracy % | EER % | M MACs | M params | MB | ms p50 | speed-up |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        latency = " | " if row.latency_ms_p50 is None else f"{row.latency_ms_p50:.1f} | {row.speed_up:.2f}"
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
    """A line for each family of techniques: accuracy against EER and, where there is any, against latency."""
    families = [("tokens", 2), ("pruning", 2), ("bits", 1)]
    figure, axes = plt.subplots(len(families), 2, figsize=(14, 18), layout="constrained")
    for line, (family, columns) in zip(axes, families, strict=True):
        draw_family([row for row in rows if row.family == family], rows[0], line[:columns])
        for unused in line[columns:]:
            unused.axis("off")
        line[-1].legend(*line[0].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(
            (1.02, 0.5) if columns > 1 else (0.0, 0.5)), fontsize=8, title=family)  # fmt: skip
    figure.savefig(path, dpi=80)


def draw_family(rows: list[Row], dense: Row, axes: Sequence[Any]) -> None:
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    for number, technique in enumerate(dict.fromkeys(row.technique for row in rows)):
        mine = sorted((row for row in rows if row.technique == technique), key=lambda row: row.eer_pct)
        style = {"color": colours[number % 10], "marker": "os^Dv"[number // 10], "markersize": 5, "linewidth": 1}
        axes[0].plot([r.eer_pct for r in mine], [r.accuracy_pct for r in mine], label=technique, **style)
        timed = sorted((r.latency_ms_p50, r.accuracy_pct) for r in mine if r.latency_ms_p50 is not None)
        if timed:
            axes[1].plot(*zip(*timed, strict=True), **style)
    axes[0].plot(dense.eer_pct, dense.accuracy_pct, "k*", markersize=12, label="dense")
    axes[0].set(xlabel="EER % of the dense network", ylabel="test accuracy %")
    if len(axes) > 1:
        axes[1].plot(dense.latency_ms_p50, dense.accuracy_pct, "k*", markersize=12)
        axes[1].set(xlabel=f"latency ms, batch {BATCH}, one thread, PyTorch float32")
    for one in axes:
        one.grid(visible=True, alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="cifar10_20k.npz")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--work", type=Path, default=Path("runs/techniques"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="turns in which latencies are measured")
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
    rows, models = [], []
    for family, technique, strength, parts in sweep():
        found, model = measure(parts, data, dense, options.work, EerSpec(reference=reference))
        rows.append(Row(family=family, technique=technique, strength=strength, **found))
        models.append(model)
        print(f"{technique:24s} {strength:10s} {rows[-1].accuracy_pct:5.1f} %  EER {rows[-1].eer_pct:5.1f} %")
    shown = data.normalized(torch.from_numpy(data.source.test[:BATCH]))
    rows = timed(rows, models, shown, options.rounds)
    options.out.mkdir(parents=True, exist_ok=True)
    write_table(rows, options.out, options.epochs, len(data.source.train))
    draw(rows, options.out / "techniques.png")
    print("\n".join(thesis_lines(rows)))


if __name__ == "__main__":
    main()
