"""What every token reducer promises, as checks that take one setting and one architecture.

Run each of ``REDUCER_CHECKS`` over ``rule.examples()`` and ``architectures(rule)``, and ``check_identity`` once
for each architecture. A failed check raises ``AssertionError``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vitsearch.candidate import Architecture, Candidate, NoReduction, TokenRule
from vitsearch.compress import assemble, build_reducers, fit_reducers, token_losses
from vitsearch.cost import cost_of
from vitsearch.models import Attention, AttentionState, TokenReducer, TokenRoute, VisionTransformer, build_dense
from vitsearch.profile.macs import count_macs
from vitsearch.train.batches import Batch
from vitsearch.train.losses import Outputs

SIDE, PATCH = 5, 2
PREFIXES: dict[str, dict[str, Any]] = {
    "cls": {},
    "cls+dist": {"distilled": True},
    "cls+2 dist": {"distilled": True, "distillation_tokens": 2},
    "no cls": {"class_token": False, "pool": "avg"},
}


def architectures(rule: TokenRule) -> dict[str, Architecture]:
    """Networks of four blocks and 25 patches with every kind of prefix that the rule admits."""
    return {
        name: Architecture(
            image_size=SIDE * PATCH, in_chans=1, num_classes=5, patch_size=PATCH, depth=4, width=24, heads=3,
            mlp_ratio=2.0, **prefix,
        )
        for name, prefix in PREFIXES.items()
        if name != "no cls" or not rule.needs_class_token
    }  # fmt: skip


def random_network(candidate: Candidate, seed: int = 0) -> VisionTransformer:
    """The candidate's dense network with its reducers, in evaluation mode; no two weights are equal."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_dense(candidate.architecture).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        model.set_reducers(build_reducers(candidate))
        fit_reducers(model, candidate, _images(8))
    return model.eval()


def token_counts(model: VisionTransformer, images_BCHW: Tensor) -> list[int]:
    """Tokens that each block of a running network computes, and that leave the last."""
    found: list[int] = []

    def entering(_: nn.Module, args: tuple[Any, ...]) -> None:
        found.append(args[0].shape[1])

    layers = [module for module in model.modules() if isinstance(module, Attention)]
    handles = [layer.register_forward_pre_hook(entering) for layer in layers]
    handles.append(model.norm.register_forward_pre_hook(entering))
    model(images_BCHW)
    for handle in handles:
        handle.remove()
    return found


def check_round_trip(rule: TokenRule, architecture: Architecture) -> None:
    """JSON brings back the same rule; the canonical form is its own canonical form."""
    candidate = Candidate(architecture=architecture, tokens=rule)
    again = Candidate.model_validate_json(candidate.model_dump_json())
    assert again == candidate, (again, candidate)
    assert candidate.canonical().canonical() == candidate.canonical()
    assert candidate.canonical().hash == candidate.hash


@torch.no_grad()
def check_canonical(rule: TokenRule, architecture: Architecture) -> None:
    """The canonical form is the same network, at the same cost."""
    candidate = Candidate(architecture=architecture, tokens=rule)
    canonical = candidate.canonical()
    assert torch.equal(random_network(canonical)(_images(3)), random_network(candidate)(_images(3)))
    assert cost_of(canonical) == cost_of(candidate)


def check_class_token(rule: TokenRule, architecture: Architecture) -> None:
    """A rule that needs a CLS token says so to a network without one."""
    without = architecture.model_copy(
        update={"class_token": False, "distilled": False, "distillation_tokens": 1, "pool": "avg"}
    )
    try:
        rule.resolved(without)
        accepted = True
    except ValueError:
        accepted = False
    assert accepted != rule.needs_class_token, f"{rule!r}, needs_class_token={rule.needs_class_token}"


@torch.no_grad()
def check_token_counts(rule: TokenRule, architecture: Architecture) -> None:
    """A running network has the tokens its rule counts, at any batch size."""
    candidate = Candidate(architecture=architecture, tokens=rule)
    counts = rule.token_counts(architecture)
    assert (min(counts) < counts[0]) != isinstance(rule, NoReduction), counts
    for batch in (3, 1):
        found = token_counts(random_network(candidate), _images(batch))
        if rule.cost_kind == "exact":
            assert found == counts, (found, counts)
        else:
            assert all(f >= c for f, c in zip(found, counts, strict=True)), (found, counts)


@torch.no_grad()
def check_prefix(rule: TokenRule, architecture: Architecture) -> None:
    """Prefix tokens stay first and unchanged, each of size one."""
    p = architecture.num_prefix_tokens
    for x_BND, _, out_BMD, out_BM in _watched(Candidate(architecture=architecture, tokens=rule)):
        torch.testing.assert_close(out_BMD[:, :p], x_BND[:, :p], rtol=0, atol=0)
        assert out_BM is None or bool((out_BM[:, :p] == 1).all())


@torch.no_grad()
def check_sizes(rule: TokenRule, architecture: Architecture) -> None:
    """Sizes account for every patch: what leaves is what came less whole tokens that were dropped."""
    for x_BND, size_BN, out_BMD, out_BM in _watched(Candidate(architecture=architecture, tokens=rule)):
        assert (out_BM is not None) == rule.tracks_sizes
        if out_BM is None:
            continue
        if not rule.drops:
            torch.testing.assert_close(
                out_BM.sum(dim=1), torch.full((len(out_BM),), float(architecture.num_tokens))
            )
        assert out_BM.shape == out_BMD.shape[:2], (out_BM.shape, out_BMD.shape)
        before_BN = torch.ones(x_BND.shape[:2]) if size_BN is None else size_BN
        for image in range(len(x_BND)):
            there_N, there_M = before_BN[image] > 0, out_BM[image] > 0  # the other places are empty
            if not rule.averages:
                gone = int(there_N.sum() - there_M.sum())
                assert 0 <= before_BN[image].sum() - out_BM[image].sum() <= gone
                continue
            dropped = dropped_mass(
                x_BND[image, there_N], before_BN[image, there_N], out_BMD[image, there_M], out_BM[image, there_M]
            )
            torch.testing.assert_close(out_BM[image].sum(), before_BN[image].sum() - dropped)


def dropped_mass(x_ND: Tensor, size_N: Tensor, out_MD: Tensor, out_M: Tensor) -> float:
    """Mass of tokens of one image that no output contains, judged by the features.

    An image either drops (every output token is an input token) or merges (the first moment is conserved).
    """
    is_input_M = (out_MD[:, None] == x_ND[None]).all(-1).any(-1)
    if is_input_M.all() and set(out_M.tolist()) <= set(size_N.tolist()):
        survives_N = (x_ND[:, None] == out_MD[None]).all(-1).any(-1)
        return float(size_N[~survives_N].sum())
    moment_before, moment_after = (size_N[:, None] * x_ND).sum(0), (out_M[:, None] * out_MD).sum(0)
    torch.testing.assert_close(moment_after, moment_before, rtol=1e-4, atol=1e-4)
    return 0.0


@torch.no_grad()
def check_positions(rule: TokenRule, architecture: Architecture) -> None:
    """A rule that does not see positions gives the same logits for patches in another order."""
    if rule.sees_positions:
        return
    model = random_network(Candidate(architecture=architecture, tokens=rule)).double()
    model.pos_embed.zero_()
    images_BCHW = _images(3).double()
    order = torch.randperm(SIDE**2, generator=torch.Generator().manual_seed(0))
    grid = images_BCHW.reshape(3, SIDE, PATCH, SIDE, PATCH).permute(0, 1, 3, 2, 4)
    patches = grid.reshape(3, SIDE**2, PATCH, PATCH)[:, order].reshape(3, SIDE, SIDE, PATCH, PATCH)
    shuffled = patches.permute(0, 1, 3, 2, 4).reshape(images_BCHW.shape)
    assert not torch.equal(shuffled, images_BCHW)
    torch.testing.assert_close(model(shuffled), model(images_BCHW), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def check_batch(rule: TokenRule, architecture: Architecture) -> None:
    """An image's logits do not depend on the images beside it."""
    model = random_network(Candidate(architecture=architecture, tokens=rule)).double()
    batch = _images(4).double()
    torch.testing.assert_close(model(batch)[2:3], model(batch[2:3]), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def check_autocast(rule: TokenRule, architecture: Architecture) -> None:
    """Under bfloat16 autocast the counts are the same and the logits finite."""
    model = random_network(Candidate(architecture=architecture, tokens=rule))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if rule.cost_kind == "exact":
            assert token_counts(model, _images(3)) == rule.token_counts(architecture)
        logits = model(_images(3))
    assert logits.isfinite().all()
    assert logits.shape == (3, architecture.num_classes)


def check_training(rule: TokenRule, architecture: Architecture) -> None:
    """Every weight gets a finite gradient through it, in float32 and under bfloat16 autocast."""
    candidate = Candidate(architecture=architecture, tokens=rule)
    for autocast in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build_dense(architecture, drop_path=0.1, dropout=0.1).train()
            model.set_reducers(build_reducers(candidate))
            batch = Batch(images_BCHW=_images(4), targets=torch.arange(4), epoch=0, step=0, start=0)
            with token_losses(model, candidate, build_dense(architecture)) as terms:
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                    heads_BK = model.forward_heads(batch.images_BCHW)
                outputs = Outputs.of(heads_BK)
                loss = nn.functional.cross_entropy(outputs.logits_BK, batch.targets)
                loss = sum((term(outputs, batch) for term in terms), loss)
        torch.autograd.backward(loss)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        assert model.patch_embed.proj.weight.grad.abs().sum() > 0


@torch.no_grad()
def check_cost(rule: TokenRule, architecture: Architecture) -> None:
    """The closed form counts the MACs that fvcore finds on the traced network."""
    candidate = Candidate(architecture=architecture, tokens=rule)
    expected = cost_of(candidate).num_macs
    if rule.cost_kind == "exact":
        found = count_macs(assemble(candidate), _images(2))
        assert found == expected, (found, expected)
    else:  # tokens of a network without training are all alike
        found = count_macs(random_network(candidate), _images(2))
        assert found >= expected, (found, expected)


@torch.no_grad()
def check_export(rule: TokenRule, architecture: Architecture) -> None:
    """``torch.export`` takes it with a free batch size and leaves nothing in the network. Slow: seconds."""
    model = random_network(Candidate(architecture=architecture, tokens=rule))
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (_images(2),), dynamic_shapes=({0: batch},)).module()
    copy.deepcopy(model)  # refused where a tensor of the tracing is kept
    for size in (1, 2, 5):
        torch.testing.assert_close(program(_images(size)), model(_images(size)), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def check_identity(rule: type[TokenRule], architecture: Architecture) -> None:
    """The identity setting is the dense network bit for bit, and the same candidate."""
    candidate = Candidate(architecture=architecture, tokens=rule.identity())
    dense = Candidate(architecture=architecture)
    assert torch.equal(random_network(candidate)(_images(3)), random_network(dense)(_images(3)))
    assert candidate.canonical() == dense.canonical()
    assert candidate.hash == dense.hash


REDUCER_CHECKS: tuple[Callable[[TokenRule, Architecture], None], ...] = (
    check_round_trip,
    check_canonical,
    check_class_token,
    check_token_counts,
    check_prefix,
    check_sizes,
    check_positions,
    check_batch,
    check_autocast,
    check_training,
    check_cost,
)


class _Watched:
    """A reducer that remembers what went in and out."""

    def __init__(self, inner: TokenReducer) -> None:
        self.inner = inner
        self.seen: list[tuple[Tensor, Tensor | None, Tensor, Tensor | None]] = []

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        out_BMD, out_BM = self.inner(x_BND, attention, size_BN)
        self.seen.append((x_BND, size_BN, out_BMD, out_BM))
        return out_BMD, out_BM


def _watched(candidate: Candidate) -> Iterator[tuple[Tensor, Tensor | None, Tensor, Tensor | None]]:
    model = random_network(candidate)
    found = {n: one.eval() if isinstance(one, nn.Module) else one for n, one in build_reducers(candidate).items()}
    reducers = {b: _Watched(one) for b, one in found.items() if not isinstance(one, TokenRoute)}
    model.set_reducers(dict(reducers))
    model(_images(3))
    for reducer in reducers.values():
        assert len(reducer.seen) == 1, f"called {len(reducer.seen)} times"
        yield reducer.seen[0]


def _images(batch: int) -> Tensor:
    return torch.randn(batch, 1, SIDE * PATCH, SIDE * PATCH, generator=torch.Generator().manual_seed(batch))
