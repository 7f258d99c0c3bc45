"""Random candidates of the presets, and the built models they are held against."""

import random

import torch

from vitsearch.candidate import Candidate
from vitsearch.models import VisionTransformer, build_pruned
from vitsearch.profile.macs import count_macs
from vitsearch.space import SearchSpace, load_preset


def random_candidates(preset: str, count: int, *, sparse: bool) -> list[Candidate]:
    """Candidates without token reduction; the same ones in every run."""
    space = SearchSpace(load_preset(preset), in_chans=3, num_classes=10)
    rng = random.Random(f"{preset} {sparse}")
    found = []
    for _ in range(count):
        drawn = space.decode({a.name: rng.choice(a.values()) for a in space.dimensions})
        parts = {"architecture": drawn.architecture, "precision": drawn.precision}
        found.append(Candidate(**parts, **({"sparsity": drawn.sparsity} if sparse else {})))
    return found


def built_figures(candidate: Candidate, batch: int = 1) -> tuple[int, int]:
    """Parameters and counted MACs of the built network."""
    a = candidate.architecture
    model = build_pruned(candidate).eval()
    with torch.no_grad():
        macs = count_macs(model, torch.zeros(batch, a.in_chans, a.image_size, a.image_size))
    return parameters(model), macs


def parameters(model: VisionTransformer) -> int:
    return sum(p.numel() for p in model.parameters())
