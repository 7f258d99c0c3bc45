"""Inference speed of compressed networks: beside what their MACs promise, and beside materialised attention.

A DeiT-S-shaped network with each token reducer at 224 and 384 pixels runs three ways, in turns, in this process:
dense, reduced by vitsearch (fused attention, one row of it for scores), and reduced by a plain implementation that
computes the attention matrix and reads scores off it. Then the overhead of a reducer that removes nothing, and the
speed of pruned networks. Medians of the rounds' ratios are printed with their range. On a GPU a batch of 8 is over
before the next kernel is launched: compare there with ``--device cuda --batch 128 --bf16``.
Run: ``python benchmarks/compress_speed.py [--rounds N] [--threads N] [--sizes 224 384] [--device cuda]``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitsearch.candidate import PPT, Architecture, Candidate, EViT, Sparsity, ToMe
from vitsearch.candidate.tokens import AnyTokenRule
from vitsearch.compress import assemble
from vitsearch.cost import cost_of
from vitsearch.models import VisionTransformer, build_dense

Call = Callable[[], object]


def deit_small(image_size: int) -> Architecture:
    return Architecture(
        image_size=image_size, in_chans=3, num_classes=1000, patch_size=16, depth=12, width=384, heads=6
    )


class PlainViT(nn.Module):
    """The same weights with the attention matrix in memory, and reducers that read their scores off it."""

    def __init__(self, dense: VisionTransformer, rule: AnyTokenRule) -> None:
        super().__init__()
        self.dense, self.rule = dense, rule
        self.counts = rule.token_counts(dense.architecture)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        x_BND, size_BN = self.dense.embed(images_BCHW), None
        for number, block in enumerate(self.dense.blocks, start=1):
            attention = block.attn
            B, N, D = x_BND.shape
            qkv = (
                attention.qkv(block.norm1(x_BND)).reshape(B, N, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
            )
            q, k, v = qkv.unbind(0)
            logits_BHNN = q @ k.transpose(-2, -1) * attention.scale
            if size_BN is not None:
                logits_BHNN = logits_BHNN + size_BN.log()[:, None, None, :]
            attn_BHNN = logits_BHNN.softmax(dim=-1)
            x_BND = x_BND + attention.proj((attn_BHNN @ v).transpose(1, 2).reshape(B, N, D))
            if self.counts[number] < self.counts[number - 1]:
                x_BND, size_BN = self._reduce(x_BND, size_BN, attn_BHNN, k, v, self.counts[number])
            x_BND = x_BND + block.mlp(block.norm2(x_BND))
        return self.dense.head(self.dense.norm(x_BND)[:, 0])

    def _reduce(
        self, x: Tensor, size: Tensor | None, attn: Tensor, k: Tensor, v: Tensor, target: int
    ) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.rule, EViT):
            scores = attn[:, :, 0, 1:].mean(dim=1)
            order = scores.argsort(dim=-1, descending=True)
            kept, rest = order[:, : target - 2], order[:, target - 2 :]
            fused = (scores.gather(1, rest)[..., None] * _take(x[:, 1:], rest)).sum(dim=1, keepdim=True)
            return torch.cat([x[:, :1], _take(x[:, 1:], kept), fused], dim=1), None
        size = torch.ones_like(x[..., 0]) if size is None else size
        merged, merged_size = _merge(x, size, k.mean(dim=1), x.shape[1] - target)
        if isinstance(self.rule, ToMe):
            return merged, merged_size
        assert isinstance(self.rule, PPT)
        scores = attn[:, :, 0, 1:].sum(dim=1) * v.transpose(1, 2).flatten(2)[:, 1:].norm(dim=-1)
        scores = scores / scores.sum(dim=-1, keepdim=True)
        kept = scores.topk(target - 1).indices + 1
        prune = scores.var(dim=-1) > self.rule.tau
        pruned = torch.cat([x[:, :1], _take(x, kept)], dim=1)
        pruned_size = torch.cat([size[:, :1], size.gather(1, kept)], dim=1)
        return torch.where(prune[:, None, None], pruned, merged), torch.where(
            prune[:, None], pruned_size, merged_size
        )


def _take(x_BND: Tensor, index_BM: Tensor) -> Tensor:
    return x_BND.gather(1, index_BM[..., None].expand(-1, -1, x_BND.shape[-1]))


def _merge(x: Tensor, size: Tensor, metric: Tensor, r: int) -> tuple[Tensor, Tensor]:
    metric = metric / metric.norm(dim=-1, keepdim=True)
    links = metric[:, ::2] @ metric[:, 1::2].transpose(-1, -2)
    links[:, 0] = -torch.inf
    best, into = links.max(dim=-1)
    order = best.argsort(dim=-1, descending=True)
    gone, stay = order[:, :r], order[:, r:].sort(dim=-1).values
    into = into.gather(1, gone)
    weighted, even, odd = x * size[..., None], size[:, ::2], size[:, 1::2]
    odd = odd.scatter_add(1, into, even.gather(1, gone))
    x_odd = weighted[:, 1::2].scatter_add(
        1, into[..., None].expand(-1, -1, x.shape[-1]), _take(weighted[:, ::2], gone)
    )
    sizes = torch.cat([even.gather(1, stay), odd], dim=1)
    return torch.cat([_take(weighted[:, ::2], stay), x_odd], dim=1) / sizes[..., None], sizes


def reducers(architecture: Architecture) -> dict[str, AnyTokenRule]:
    """ToMe r = 13, EViT 0.7, and PPT that ends with as many tokens as EViT."""
    last = EViT(keep=0.7).token_counts(architecture)[-1]
    return {
        "tome r=13": ToMe(r=13),
        "evit 0.7": EViT(keep=0.7),
        "ppt": PPT(r=round((architecture.num_tokens - last) / 3)),
    }


def finished(call: Call) -> None:
    """Run to completion, on a GPU too."""
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.inference_mode()
def in_turns(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round."""
    for call in calls.values():
        finished(call)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            finished(call)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> tuple[float, float, float]:
    """Median, least and largest of slow / fast, round by round."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def compare_reducers(size: int, rounds: int, batch: int) -> None:
    architecture = deit_small(size)
    dense = build_dense(architecture).eval()
    images = torch.randn(batch, 3, size, size)
    calls: dict[str, Call] = {"dense": lambda: dense(images)}
    candidates = {n: Candidate(architecture=architecture, tokens=r) for n, r in reducers(architecture).items()}
    for name, candidate in candidates.items():
        reduced = assemble(candidate)
        reduced.load_state_dict(dense.state_dict())
        plain = PlainViT(dense, candidate.canonical().tokens).eval()
        calls[name] = lambda reduced=reduced: reduced(images)
        calls[name + " plain"] = lambda plain=plain: plain(images)
        if not torch.is_autocast_enabled(images.device.type):
            with torch.inference_mode():
                torch.testing.assert_close(reduced(images), plain(images), atol=2e-3, rtol=1e-3)
    seconds = in_turns(calls, rounds)
    dense_macs = cost_of(Candidate(architecture=architecture)).num_macs
    for name, candidate in candidates.items():
        promised = dense_macs / cost_of(candidate).num_macs
        measured, low, high = ratio(seconds["dense"], seconds[name])
        beside, *_ = ratio(seconds[name + " plain"], seconds[name])
        print(
            f"{size} px  {name:9s} {batch / statistics.median(seconds[name]):6.1f} img/s  speed-up {measured:.2f} "
            f"({low:.2f}-{high:.2f}), MACs promise {promised:.2f}, {measured / promised:4.0%} of it;  "
            f"{beside:.2f}x the plain implementation"
        )


def compare_identity(rounds: int, batch: int) -> None:
    architecture = deit_small(224)
    dense = build_dense(architecture).eval()
    idle = assemble(Candidate(architecture=architecture, tokens=ToMe(r=0)))
    idle.load_state_dict(dense.state_dict())
    images = torch.randn(batch, 3, 224, 224)
    seconds = in_turns({"dense": lambda: dense(images), "r = 0": lambda: idle(images)}, rounds)
    middle, low, high = ratio(seconds["r = 0"], seconds["dense"])
    print(f"224 px  a reducer at r = 0 takes {middle - 1:+.1%} ({low - 1:+.1%} to {high - 1:+.1%})")


def compare_pruned(rounds: int, batch: int) -> None:
    architecture = deit_small(224)
    images = torch.randn(batch, 3, 224, 224)
    shapes = {
        "MLP units 50 %": Sparsity(method="magnitude", mlp_units=768),
        "heads 4 of 6": Sparsity(method="magnitude", heads=4),
        "both": Sparsity(method="magnitude", mlp_units=768, heads=4),
        "q, k, v 32 of 64": Sparsity(method="magnitude", qk_dim=32, v_dim=32),
        "q, k 32 of 64": Sparsity(method="magnitude", qk_dim=32),
        "channels 288": Sparsity(method="magnitude", width=288),
        "blocks 9 of 12": Sparsity(method="magnitude", blocks=9),
        "half the MACs": Sparsity(method="magnitude", macs_ratio=0.5),
    }
    models = {"dense": build_dense(architecture).eval()}
    candidates = {name: Candidate(architecture=architecture, sparsity=s) for name, s in shapes.items()}
    models |= {name: assemble(candidate) for name, candidate in candidates.items()}
    seconds = in_turns({name: lambda model=model: model(images) for name, model in models.items()}, rounds)
    dense_macs = cost_of(Candidate(architecture=architecture)).num_macs
    for name, candidate in candidates.items():
        promised = dense_macs / cost_of(candidate).num_macs
        measured, low, high = ratio(seconds["dense"], seconds[name])
        print(
            f"224 px  {name:16s} speed-up {measured:.2f} ({low:.2f}-{high:.2f}), MACs promise {promised:.2f}, "
            f"{measured / promised:4.0%} of it"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="*", default=[224, 384])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_default_device(options.device)
    torch.manual_seed(0)
    form = "bfloat16" if options.bf16 else "float32"
    print(
        f"DeiT-S shape, batch {options.batch}, {options.device}, {options.threads} thread(s), {form}, "
        f"{options.rounds} rounds in turns"
    )
    with torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.bf16):
        for size in options.sizes:
            compare_reducers(size, options.rounds, options.batch)
        if 224 in options.sizes:
            compare_identity(2 * options.rounds, options.batch)
            compare_pruned(options.rounds, options.batch)


if __name__ == "__main__":
    main()
