"""Published models to hold a front against, from Tables 2 to 8 of the EER survey."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources


@dataclass(frozen=True, kw_only=True)
class Landmark:
    """One published model on ImageNet-1k at 224 pixels.

    Attributes:
        table: Table of the survey the row stands in.
        category: The survey's family: CA compact architecture, P pruning, KD distillation, Q quantisation.
        model: Name as published.
        params_m: Parameters in millions.
        flops_g: MACs in billions.
        bits: Mean of weight and activation bits.
        size_mb: Stored size in MB.
        top1_pct: Published top-1 accuracy in percent.
        eer_pct: EER as published.
        eer_metrics: Metrics inside that EER.
        recomputed_pct: EER recomputed from the row's own figures; absent where a figure is missing.
    """

    table: int
    category: str
    model: str
    params_m: float | None
    flops_g: float | None
    bits: float | None
    size_mb: float | None
    top1_pct: float | None
    eer_pct: float | None
    eer_metrics: tuple[str, ...]
    recomputed_pct: float | None

    def eer_values(self) -> dict[str, float]:
        """The row's figures in the names and units of ``vitsearch.cost.eer_pct``."""
        found = {
            "params": None if self.params_m is None else self.params_m * 1e6,
            "macs": None if self.flops_g is None else self.flops_g * 1e9,
            "bits": self.bits,
            "size": self.size_mb,
        }
        return {name: value for name, value in found.items() if value is not None}


@lru_cache(maxsize=1)
def landmarks() -> tuple[Landmark, ...]:
    """All rows, in the survey's order."""
    source = resources.files("vitsearch.cost").joinpath("landmarks.csv")
    with source.open(encoding="utf-8") as lines:
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return tuple(_landmark(row) for row in rows)


def _landmark(row: dict[str, str]) -> Landmark:
    def number(key: str) -> float | None:
        return float(row[key]) if row[key] else None

    weight_bits, activation_bits = number("bits_w"), number("bits_a")
    bits = None if weight_bits is None or activation_bits is None else (weight_bits + activation_bits) / 2
    return Landmark(
        table=int(row["table"]),
        category=row["category"],
        model=row["model"],
        params_m=number("params_m"),
        flops_g=number("flops_g"),
        bits=bits,
        size_mb=number("size_mb"),
        top1_pct=number("top1_pct"),
        eer_pct=number("eer_pct"),
        eer_metrics=tuple("macs" if name == "flops" else name for name in row["eer_metrics"].split("+")),
        recomputed_pct=number("recomputed_pct"),
    )
