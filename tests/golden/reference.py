"""Vision Transformers and token reducers in numpy, one image at a time, in float64, with loops.

Written from the papers' equations, independent of vitsearch and of torch. A token is a row of ``x`` (N, D); heads
stand first in ``q``, ``k`` and ``v`` (H, N, K).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import erf

Array = npt.NDArray[np.float64]
Reduction = Callable[["Seen"], tuple[Array, Array]]


@dataclass(frozen=True)
class Seen:
    """What a reducer sees after the attention's residual of one block; ``w`` are the weights of its own there."""

    x: Array
    size: Array
    q: Array
    k: Array
    v: Array
    prefix: int
    w: dict[str, Array] = field(default_factory=dict)

    def attention(self, head: int) -> Array:
        """softmax(q k^T / sqrt(K) + log s), the whole matrix of one head."""
        logits = self.q[head] @ self.k[head].T / math.sqrt(self.q.shape[-1]) + np.log(self.size)[None, :]
        return softmax(logits)


def softmax(logits: Array) -> Array:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def forward(
    weights: dict[str, Array],
    image_CHW: Array,
    *,
    patch: int,
    heads: int,
    reductions: dict[int, Reduction],
    pool: str = "token",
) -> tuple[Array, list[Array]]:
    """Logits of one image, and the token sizes after each block."""
    w = weights
    x = embed(w, image_CHW, patch)
    prefix = len(prefix_rows(w))
    size = np.ones(len(x))
    sizes = []
    depth = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))
    for b in range(depth):
        x, seen = attend(w, b, x, size, heads, prefix)
        if b + 1 in reductions:
            x, size = reductions[b + 1](seen)
        x = mix_channels(w, b, x)
        sizes.append(size)
    return logits(w, x, prefix, pool), sizes


def attend(w: dict[str, Array], b: int, x: Array, size: Array, heads: int, prefix: int) -> tuple[Array, Seen]:
    """The first half of block b, from 0."""
    p = f"blocks.{b}."
    y = layer_norm(x, w[p + "norm1.weight"], w[p + "norm1.bias"])
    qkv = y @ w[p + "attn.qkv.weight"].T + w[p + "attn.qkv.bias"]
    q, k, v = (split_heads(part, heads) for part in np.split(qkv, 3, axis=1))
    place = p + "reducer."
    own = {name.removeprefix(place): value for name, value in w.items() if name.startswith(place)}
    seen = Seen(x, size, q, k, v, prefix, own)
    mixed = np.concatenate([seen.attention(h) @ v[h] for h in range(heads)], axis=1)
    x = x + mixed @ w[p + "attn.proj.weight"].T + w[p + "attn.proj.bias"]
    return x, Seen(x, size, q, k, v, prefix, own)


def mix_channels(w: dict[str, Array], b: int, x: Array) -> Array:
    """The second half of block b, from 0."""
    p = f"blocks.{b}."
    y = layer_norm(x, w[p + "norm2.weight"], w[p + "norm2.bias"])
    hidden = y @ w[p + "mlp.fc1.weight"].T + w[p + "mlp.fc1.bias"]
    return x + gelu(hidden) @ w[p + "mlp.fc2.weight"].T + w[p + "mlp.fc2.bias"]


def logits(w: dict[str, Array], x: Array, prefix: int, pool: str) -> Array:
    x = layer_norm(x, w["norm.weight"], w["norm.bias"])
    if pool == "avg":
        return w["head.weight"] @ x[prefix:].mean(axis=0) + w["head.bias"]
    found = w["head.weight"] @ x[0] + w["head.bias"]
    others = [name for name in ("head_dist", "head_dist2") if f"{name}.weight" in w]
    for place, name in enumerate(others, start=1):
        found = found + w[f"{name}.weight"] @ x[place] + w[f"{name}.bias"]
    return found / (1 + len(others))


def forward_evo(
    w: dict[str, Array],
    image_CHW: Array,
    *,
    patch: int,
    heads: int,
    keep: float,
    blocks: tuple[int, ...],
    pool: str,
) -> Array:
    """Evo-ViT: in chosen blocks only the best patches and one token for the others are computed."""
    x = embed(w, image_CHW, patch)
    prefix = len(prefix_rows(w))
    depth = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))
    rank: list[float] = []
    for b in range(depth):
        if b + 1 not in blocks:
            x, seen = attend(w, b, x, np.ones(len(x)), heads, prefix)
            x = mix_channels(w, b, x)
            now = cls_attention(seen)
            rank = [0.5 * g + 0.5 * a for g, a in zip(rank, now, strict=True)] if rank else list(now)
            continue
        kept, rest = best(np.array(rank), math.ceil(round(keep * len(rank), 9)))
        total = sum(rank[i] for i in rest)
        one_for_all = sum(rank[i] / total * x[prefix + i] for i in rest)
        rows = np.stack([*x[:prefix], *(x[prefix + i] for i in kept), one_for_all])
        after, seen = attend(w, b, rows, np.ones(len(rows)), heads, prefix)
        after = mix_channels(w, b, after)
        now = cls_attention(seen)
        x = x.copy()
        x[:prefix] = after[:prefix]
        for i in rest:
            x[prefix + i] = x[prefix + i] + after[-1] - one_for_all
        for place, i in enumerate(kept):
            x[prefix + i] = after[prefix + place]
            rank[i] = 0.5 * rank[i] + 0.5 * now[place]
    return logits(w, x, prefix, pool)


def gelu(x: Array) -> Array:
    return x * (1 + erf(x / math.sqrt(2))) / 2


def linear(w: dict[str, Array], layer: str, x: Array) -> Array:
    return x @ w[layer + ".weight"].T + w[layer + ".bias"]


def forward_dynamicvit(
    w: dict[str, Array], image_CHW: Array, *, patch: int, heads: int, kept: dict[int, int | Array], pool: str
) -> tuple[Array, list[tuple[Array, Array]]]:
    """DynamicViT: before chosen blocks some patches go on, and the others are gone.

    Args:
        w: Weights by name.
        image_CHW: One image.
        patch: Side of a patch.
        heads: Heads.
        kept: By block, how many of the patches most probably kept go on; or which of all patches, boolean.
        pool: As in the architecture.

    Returns:
        Logits; and for each choice the patches it was made among and their (P, 2) log-probabilities.
    """
    x = embed(w, image_CHW, patch)
    prefix, asked = len(prefix_rows(w)), []
    left = np.arange(len(x) - prefix)
    depth = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))
    for b in range(depth):
        if b + 1 in kept:
            p, chosen = f"blocks.{b}.reducer.", kept[b + 1]
            z = layer_norm(x[prefix:], w[p + "features.0.weight"], w[p + "features.0.bias"])
            z = gelu(linear(w, p + "features.1", z))
            half = z.shape[1] // 2
            rows = []
            for i in range(len(z)):
                y = np.concatenate([z[i, :half], z[:, half:].sum(axis=0) / len(z)])
                y = gelu(linear(w, p + "choice.0", y))
                y = linear(w, p + "choice.4", gelu(linear(w, p + "choice.2", y)))
                rows.append(y - math.log(math.exp(y[0]) + math.exp(y[1])))
            logs = np.array(rows).reshape(-1, 2)
            asked.append((left, logs))
            stay = best(logs[:, 0], chosen)[0] if isinstance(chosen, int) else np.flatnonzero(chosen[left])
            left = left[stay]
            x = np.concatenate([x[:prefix], x[prefix:][stay]])
        x, _ = attend(w, b, x, np.ones(len(x)), heads, prefix)
        x = mix_channels(w, b, x)
    return logits(w, x, prefix, pool), asked


def forward_avit(
    w: dict[str, Array], image_CHW: Array, *, patch: int, heads: int, gamma: float, beta: float, eps: float
) -> tuple[Array, list[int], float]:
    """A-ViT: logits, the tokens that each block computes, and the sum of blocks and remainders over tokens."""
    x = embed(w, image_CHW, patch)
    prefix = len(prefix_rows(w))
    depth = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))
    summed, output = [0.0] * len(x), np.zeros_like(x[:prefix])
    counts, ponder = [], 0.0
    for b in range(depth):
        counts.append(len(x))
        x, _ = attend(w, b, x, np.ones(len(x)), heads, prefix)
        x = mix_channels(w, b, x)
        stay = []
        for i in range(len(x)):
            done = summed[i] >= 1 - eps  # only prefix tokens are still here then
            h = 1.0 if b == depth - 1 else 1 / (1 + math.exp(-(gamma * x[i, 0] - beta)))
            halts = not done and summed[i] + h >= 1 - eps
            share = 0.0 if done else 1 - summed[i] if halts else h
            if not done:
                ponder += 1 + (1 - summed[i] if halts else 0.0)
            if i < prefix:
                output[i] = output[i] + share * x[i]
            if i < prefix or not halts:
                stay.append(i)
            summed[i] += h
        if b < depth - 1:
            x, summed = x[stay], [summed[i] for i in stay]
    return logits(w, np.concatenate([output, x[prefix:]]), prefix, "token"), counts, ponder


def prefix_rows(w: dict[str, Array]) -> list[Array]:
    """CLS and distillation tokens before their positions are added."""
    return [row for name in ("cls_token", "dist_token") if name in w for row in w[name][0]]


def embed(w: dict[str, Array], image_CHW: Array, patch: int) -> Array:
    kernel = w["patch_embed.proj.weight"]
    rows = prefix_rows(w)
    for top in range(0, image_CHW.shape[1], patch):
        for left in range(0, image_CHW.shape[2], patch):
            window = image_CHW[:, top : top + patch, left : left + patch]
            rows.append((kernel * window).sum(axis=(1, 2, 3)) + w["patch_embed.proj.bias"])
    return np.stack(rows) + w["pos_embed"][0]


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6) * weight + bias


def split_heads(x: Array, heads: int) -> Array:
    return np.stack(np.split(x, heads, axis=1))


def links(metric: Array, r: int, prefix: int) -> list[tuple[int, int]]:
    """The r best (a, b): a even, b odd, each a to its most cosine-similar b; prefix tokens take no part."""
    unit = [row / math.sqrt((row**2).sum()) for row in metric]
    odd = [i for i in range(prefix, len(metric)) if i % 2 == 1]
    found = []
    for a in range(prefix, len(metric)):
        if a % 2 == 0:
            best = max(odd, key=lambda b: float(unit[a] @ unit[b]))
            found.append((float(unit[a] @ unit[best]), a, best))
    return [(a, b) for _, a, b in sorted(found, reverse=True)[:r]]


def tome(r: int) -> Reduction:
    """Merge r pairs; output: prefix, even tokens left over in order, odd tokens in order."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        now = min(r, (len(seen.x) - seen.prefix) // 2)
        mass, size = seen.x * seen.size[:, None], seen.size.copy()
        merged = links(seen.k.mean(axis=0), now, seen.prefix)
        for a, b in merged:
            mass[b] = mass[b] + mass[a]
            size[b] = size[b] + size[a]
        gone = {a for a, _ in merged}
        patches = range(seen.prefix, len(seen.x))
        order = [
            *range(seen.prefix),
            *(i for i in patches if i % 2 == 0 and i not in gone),
            *(i for i in patches if i % 2 == 1),
        ]
        return np.stack([mass[i] / size[i] for i in order]), size[order]

    return reduce


def evit(keep: float, *, fuse: bool = True, score: str = "cls_attention") -> Reduction:
    """Keep the ceil(keep (N - prefix)) best patches; fuse the rest with weights a_i."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        value = SCORES[score](seen)
        if score != "cls_attention":
            value = value / sum(value)
        kept, rest = best(value, math.ceil(round(keep * len(value), 9)))
        rows = [*seen.x[: seen.prefix], *(seen.x[seen.prefix + i] for i in kept)]
        if fuse and rest:
            fused = np.zeros(seen.x.shape[1])
            for i in rest:
                fused = fused + value[i] * seen.x[seen.prefix + i]
            rows.append(fused)
        return np.stack(rows), np.ones(len(rows))

    return reduce


def best(value: Array, count: int) -> tuple[list[int], list[int]]:
    """Positions of the largest values, ascending, and of the others, largest first."""
    order = sorted(range(len(value)), key=lambda i: -value[i])
    return sorted(order[:count]), order[count:]


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


def topk(count: int, *, merge: bool, score: str) -> Reduction:
    """Keep the best patches; the others are dropped or merge into the most similar one of them."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        kept, rest = best(SCORES[score](seen), min(count, len(seen.x) - seen.prefix))
        x, size = seen.x[seen.prefix :], seen.size[seen.prefix :]
        mass = {j: size[j] * x[j] for j in kept}
        total = {j: size[j] for j in kept}
        for i in rest if merge else []:
            nearest = max(kept, key=lambda j: cosine(x[i], x[j]))
            mass[nearest] = mass[nearest] + size[i] * x[i]
            total[nearest] = total[nearest] + size[i]
        rows = [*seen.x[: seen.prefix], *(mass[j] / total[j] for j in kept)]
        return np.stack(rows), np.array([*seen.size[: seen.prefix], *(total[j] for j in kept)])

    return reduce


def threshold(tau: float, *, merge: bool, score: str) -> Reduction:
    """Keep the patches whose score exceeds tau, or else the best one."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        value = SCORES[score](seen)
        return topk(max(1, sum(v > tau for v in value)), merge=merge, score=score)(seen)

    return reduce


def ats(samples: int, *, score: str = "ats") -> Reduction:
    """Keep the patches whose cumulated share is nearest to one of evenly spread points."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        value = SCORES[score](seen)
        order = sorted(range(len(value)), key=lambda i: value[i])
        reached, total = [], 0.0
        for i in order:
            total += value[i] / sum(value)
            reached.append(total)
        hit = set()
        for k in range(1, samples + 1):
            point = (2 * k - 1) / (2 * samples)
            hit.add(order[min(range(len(order)), key=lambda place: abs(reached[place] - point))])
        stay = [*range(seen.prefix), *(seen.prefix + i for i in sorted(hit))]
        return seen.x[stay], seen.size[stay]

    return reduce


def similarity_pool(tau: float, pool: str, *, score: str) -> Reduction:
    """Groups of patches, each opened by the best patch that is in none."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        x, size, value = seen.x[seen.prefix :], seen.size[seen.prefix :], SCORES[score](seen)
        groups: dict[int, list[int]] = {}
        free = sorted(range(len(x)), key=lambda i: -value[i])
        while free:
            opener = free.pop(0)
            groups[opener] = [opener, *(i for i in free if cosine(x[i], x[opener]) > tau)]
            free = [i for i in free if i not in groups[opener]]
        rows, sizes = list(seen.x[: seen.prefix]), list(seen.size[: seen.prefix])
        for opener in sorted(groups):
            mass = sum(size[i] for i in groups[opener])
            rows.append(sum(size[i] * x[i] for i in groups[opener]) / mass if pool == "avg" else x[opener])
            sizes.append(mass)
        return np.stack(rows), np.array(sizes)

    return reduce


def ltmp(merge_above: float, drop_below: float) -> Reduction:
    """Merge even patches into odd ones that are alike, then drop patches that are little attended to."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        heads = range(seen.q.shape[0])
        received = sum(seen.attention(h).sum(axis=0) for h in heads) / len(heads)
        mass, size = seen.x * seen.size[:, None], seen.size.copy()
        metric = seen.k.mean(axis=0)
        gone = set()
        odd = [i for i in range(seen.prefix, len(seen.x)) if i % 2 == 1]
        for a in range(seen.prefix, len(seen.x)):
            if a % 2 == 0 and odd:
                nearest = max(odd, key=lambda b: cosine(metric[a], metric[b]))
                if cosine(metric[a], metric[nearest]) > merge_above:
                    mass[nearest], size[nearest] = mass[nearest] + mass[a], size[nearest] + size[a]
                    gone.add(a)
        left = [i for i in range(seen.prefix, len(seen.x)) if i not in gone]
        most = max(left, key=lambda i: received[i])
        left = [i for i in left if received[i] > drop_below or i == most]
        stay = [*range(seen.prefix), *left]
        return np.stack([mass[i] / size[i] for i in stay]), size[stay]

    return reduce


def iared(below: float) -> Reduction:
    """Keep patches of which the interpreter's heads think well on average."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        heads = seen.q.shape[0]
        z = layer_norm(seen.x, seen.w["norm.weight"], seen.w["norm.bias"])
        k = split_heads(linear(seen.w, "key", z[:1]), heads)
        q = split_heads(linear(seen.w, "query", z), heads)
        value = []
        for i in range(seen.prefix, len(seen.x)):
            logits_H = [
                float(q[h, i] @ k[h, 0]) / math.sqrt(q.shape[-1]) + float(seen.w["shift"]) for h in range(heads)
            ]
            value.append(sum(1 / (1 + math.exp(-one)) for one in logits_H) / heads)
        stay = [i for i, v in enumerate(value) if v >= below] or [int(np.argmax(value))]
        rows = [*range(seen.prefix), *(seen.prefix + i for i in stay)]
        return seen.x[rows], seen.size[rows]

    return reduce


def ps_vit_places(
    w: dict[str, Array], images: list[Array], *, patch: int, heads: int, epsilon: float
) -> list[list[int]]:
    """Patch slimming: the places that leave the middle of each block, chosen from the last one down."""
    depth = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))
    prefix = len(prefix_rows(w))
    entering: list[list[Array]] = []
    now = [embed(w, image, patch) for image in images]
    for b in range(depth):
        entering.append(now)
        now = [mix_channels(w, b, attend(w, b, x, np.ones(len(x)), heads, prefix)[0]) for x in now]
    total = sum(cls_attention(attend(w, depth - 1, x, np.ones(len(x)), heads, prefix)[1]) for x in entering[-1])
    needed = [int(np.argmax(total))]
    found = [needed]
    for b in range(depth - 1, 0, -1):
        rows = [*range(prefix), *(prefix + i for i in needed)]
        exact, weight = [], np.zeros(len(entering[b][0]))
        for x in entering[b]:
            y, seen = attend(w, b, x, np.ones(len(x)), heads, prefix)
            exact.append(mix_channels(w, b, y)[rows])
            for h in range(heads):
                a = seen.attention(h)
                for i in range(len(x)):
                    weight[i] += sum(a[j, i] ** 2 for j in rows) * float(seen.v[h, i] @ seen.v[h, i])
        order = sorted(
            (i for i in range(len(weight) - prefix) if i not in needed), key=lambda i: -weight[prefix + i]
        )
        for count in range(len(order) + 1):
            places = sorted([*rows, *(prefix + i for i in order[:count])])
            errors = []
            for x, y in zip(entering[b], exact, strict=True):
                z, _ = attend(w, b, x[places], np.ones(len(places)), heads, prefix)
                z = mix_channels(w, b, z)[[places.index(row) for row in rows]]
                errors.append(((z - y) ** 2).sum() / (y**2).sum())
            if sum(errors) / len(errors) <= epsilon:
                break
        needed = sorted([*needed, *order[:count]])
        found.append(needed)
    return found[::-1]


def diffrate(pruned: int, merged: int, *, score: str = "cls_attention") -> Reduction:
    """Drop the last patches by score and merge those before them into the most similar of the others."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        value = SCORES[score](seen)
        order = [i + seen.prefix for i in sorted(range(len(value)), key=lambda i: -value[i])]
        last = max(1, len(order) - pruned)
        first = max(1, last - merged)
        kept = sorted(order[:first])
        mass, total = seen.x * seen.size[:, None], seen.size.copy()
        for i in order[first:last]:
            nearest = max(kept, key=lambda j: cosine(seen.x[i], seen.x[j]))
            mass[nearest] = mass[nearest] + seen.size[i] * seen.x[i]
            total[nearest] = total[nearest] + seen.size[i]
        stay = [*range(seen.prefix), *kept]
        return np.stack([mass[i] / total[i] for i in stay]), total[stay]

    return reduce


def tps(keep: float, *, score: str = "cls_attention") -> Reduction:
    """x_j <- (e x_j + sum e^cos x_i) / (e + sum e^cos) over the pruned i nearest to the kept j."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        x = seen.x[seen.prefix :]
        kept, rest = best(SCORES[score](seen), math.ceil(round(keep * len(x), 9)))
        rows = list(seen.x[: seen.prefix])
        for j in kept:
            above, below = math.e * x[j], math.e
            for i in rest:
                if max(kept, key=lambda one: cosine(x[i], x[one])) == j:
                    weight = math.exp(cosine(x[i], x[j]))
                    above, below = above + weight * x[i], below + weight
            rows.append(above / below)
        return np.stack(rows), np.ones(len(rows))

    return reduce


def spvit(keep: float, *, score: str = "cls_attention") -> Reduction:
    """Keep the best patches; one token is the mean of the others."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        x = seen.x[seen.prefix :]
        kept, rest = best(SCORES[score](seen), math.ceil(round(keep * len(x), 9)))
        package = sum(x[i] for i in rest) / len(rest)
        rows = [*seen.x[: seen.prefix], *(x[j] for j in kept), package]
        return np.stack(rows), np.ones(len(rows))

    return reduce


def grid_pool(grid: int, pool: str, *, score: str = "cls_attention") -> Reduction:
    """One token for each grid x grid window of the square of patches; windows at the edge are cut off."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        side = math.isqrt(len(seen.x) - seen.prefix)
        rows, sizes = list(seen.x[: seen.prefix]), list(seen.size[: seen.prefix])
        values = SCORES[score](seen) if pool == "attention" else None
        for top in range(0, side, grid):
            for left in range(0, side, grid):
                window = [
                    seen.prefix + row * side + column
                    for row in range(side)
                    for column in range(side)
                    if top <= row < top + grid and left <= column < left + grid
                ]
                if pool == "max":
                    rows.append(np.max([seen.x[i] for i in window], axis=0))
                else:
                    weight = {i: seen.size[i] if values is None else values[i - seen.prefix] for i in window}
                    rows.append(sum(weight[i] * seen.x[i] for i in window) / sum(weight.values()))
                sizes.append(sum(seen.size[i] for i in window))
        return np.stack(rows), np.array(sizes)

    return reduce


def token_pooling(count: int, method: str, iterations: int, *, score: str) -> Reduction:
    """Weighted K-means or K-medoids of the patches, which begins with the patches of the largest weight."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        x, weight = seen.x[seen.prefix :], SCORES[score](seen)
        centres = [x[j] for j in best(weight, count)[0]]
        for _ in range(iterations):
            own = [min(range(count), key=lambda c: float(((row - centres[c]) ** 2).sum())) for row in x]
            for c in range(count):
                members = [i for i in range(len(x)) if own[i] == c]
                if members and method == "kmeans":
                    centres[c] = sum(weight[i] * x[i] for i in members) / sum(weight[i] for i in members)
                elif members:
                    centres[c] = x[min(members, key=lambda i: scatter(x, weight, members, i))]
        rows = [*seen.x[: seen.prefix], *centres]
        return np.stack(rows), np.ones(len(rows))

    return reduce


def scatter(x: Array, weight: Array, members: list[int], centre: int) -> float:
    """Weighted sum of squared distances of members from one of them."""
    return sum(float(weight[j] * ((x[j] - x[centre]) ** 2).sum()) for j in members)


def cls_attention(seen: Seen) -> Array:
    """mean_h A[cls, i]."""
    heads = range(seen.q.shape[0])
    return np.array([
        sum(seen.attention(h)[0, i] for h in heads) / len(heads) for i in range(seen.prefix, len(seen.x))
    ])  # fmt: skip


def attention_to_cls(seen: Seen) -> Array:
    """mean_h A[i, cls]."""
    heads = range(seen.q.shape[0])
    return np.array([
        sum(seen.attention(h)[i, 0] for h in heads) / len(heads) for i in range(seen.prefix, len(seen.x))
    ])  # fmt: skip


def attention_received(seen: Seen) -> Array:
    """Sum over heads and queries j of A[j, i]."""
    everywhere = [(h, j) for h in range(seen.q.shape[0]) for j in range(len(seen.x))]
    return np.array([sum(seen.attention(h)[j, i] for h, j in everywhere) for i in range(seen.prefix, len(seen.x))])


def entropy(seen: Seen) -> Array:
    """mean_h entropy(A[i, :]) * norm(v_i), heads of v concatenated, normalised over patches."""
    raw = []
    heads = range(seen.q.shape[0])
    for i in range(seen.prefix, len(seen.x)):
        disorder = sum(-sum(p * math.log(p) for p in seen.attention(h)[i]) for h in heads) / len(heads)
        raw.append(disorder * math.sqrt(sum(float(seen.v[h, i] @ seen.v[h, i]) for h in heads)))
    return np.array(raw) / sum(raw)


def magnitude(seen: Seen) -> Array:
    """The Euclidean norm of the feature."""
    return np.array([math.sqrt(sum(v * v for v in row)) for row in seen.x[seen.prefix :]])


def ats_scores(seen: Seen) -> Array:
    """sum_h A[cls, i] * norm(v_i), heads of v concatenated, normalised over patches."""
    raw = []
    for i in range(seen.prefix, len(seen.x)):
        attention = sum(seen.attention(h)[0, i] for h in range(seen.q.shape[0]))
        value = np.concatenate([seen.v[h, i] for h in range(seen.v.shape[0])])
        raw.append(attention * math.sqrt((value**2).sum()))
    return np.array(raw) / sum(raw)


def unbiased_variance(values: Array) -> float:
    mean = sum(values) / len(values)
    return float(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def learned(seen: Seen) -> Array:
    """sigmoid(W2 gelu(W1 LayerNorm(x_i) + b1) + b2)."""
    y = layer_norm(seen.x[seen.prefix :], seen.w["network.0.weight"], seen.w["network.0.bias"])
    y = linear(seen.w, "network.3", gelu(linear(seen.w, "network.1", y)))[:, 0]
    return 1 / (1 + np.exp(-y))


SCORES: dict[str, Callable[[Seen], Array]] = {
    "cls_attention": cls_attention,
    "attention_to_cls": attention_to_cls,
    "attention_received": attention_received,
    "ats": ats_scores,
    "entropy": entropy,
    "magnitude": magnitude,
    "learned": learned,
}


def ppt(r: int, tau: float, pruned: list[bool] | None = None, score_name: str = "ats") -> Reduction:
    """Drop the r lowest scores of an image whose score variance exceeds tau, else merge r pairs."""

    def reduce(seen: Seen) -> tuple[Array, Array]:
        now = min(r, (len(seen.x) - seen.prefix) // 2)
        score = SCORES[score_name](seen)
        score = score / sum(score)
        prune = unbiased_variance(score) > tau
        if pruned is not None:
            pruned.append(prune)
        if not prune:
            return tome(now)(seen)
        lowest = sorted(range(len(score)), key=lambda i: score[i])[:now]
        kept = [i for i in range(len(seen.x)) if i - seen.prefix not in lowest]
        return seen.x[kept], seen.size[kept]

    return reduce
