"""What learned reducers add to the loss, against the papers' formulas in plain numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vitsearch.candidate import LTMP, Architecture, Candidate, DynamicViT, IARed
from vitsearch.compress import build_reducers, token_losses
from vitsearch.compress.tokens.diffrate_learned import DiffRateLearnedReducer
from vitsearch.compress.tokens.dynamicvit import DynamicViTRoute
from vitsearch.compress.tokens.iared import IARedReducer
from vitsearch.compress.tokens.learned import LearnedScoreReducer
from vitsearch.compress.tokens.ltmp import GAIN, LTMPReducer, step
from vitsearch.models import VisionTransformer, build_dense
from vitsearch.train.batches import Batch
from vitsearch.train.losses import Outputs

A = Architecture(image_size=8, in_chans=1, num_classes=3, patch_size=2, depth=3, width=12, heads=3, mlp_ratio=2.0)


def training(candidate: Candidate, seed: int = 0) -> tuple[VisionTransformer, Batch, Outputs]:
    torch.manual_seed(seed)
    model = build_dense(A).double().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.set_reducers(build_reducers(candidate))
    model.double()
    images_BCHW = torch.randn(4, 1, 8, 8).double()
    batch = Batch(images_BCHW=images_BCHW, targets=torch.tensor([0, 1, 2, 0]), epoch=0, step=0, start=0)
    return model, batch, Outputs(cls_BK=torch.randn(4, 3).double())


def test_dynamicvit():
    """2 (kept - target)^2 + KL / 2 + the squared distance of kept tokens / 2."""
    candidate = Candidate(architecture=A, tokens=DynamicViT(keep=0.5, blocks=(2, 3)))
    model, batch, outputs = training(candidate)
    torch.manual_seed(1)
    teacher = build_dense(A).double()
    with token_losses(model, candidate, teacher) as (term,):
        model.forward_heads(batch.images_BCHW)
        tokens_BND = model.forward_features(batch.images_BCHW).detach().numpy()  # the latest pass is what counts
        policies = [
            b.reducer.policy_BP.detach().numpy() for b in model.blocks if isinstance(b.reducer, DynamicViTRoute)
        ]
        found = float(term(outputs, batch).detach())
        theirs_BND = teacher.forward_features(batch.images_BCHW).detach().numpy()
        t = np.log(softmax(teacher(batch.images_BCHW).detach().numpy()))
    s = np.log(softmax(outputs.cls_BK.numpy()))
    ratio = np.mean(
        [
            (policy[i].mean() - target) ** 2
            for policy, target in zip(policies, (0.5, 0.25), strict=True)
            for i in range(4)
        ]
    )
    divergence = np.mean([(np.exp(t[i]) * (t[i] - s[i])).sum() for i in range(4)])
    kept = policies[-1]
    distances = [
        ((tokens_BND[i, 1 + j] - theirs_BND[i, 1 + j]) ** 2).mean()
        for i in range(4)
        for j in range(16)
        if kept[i, j]
    ]
    assert set(np.unique(kept)) <= {0.0, 1.0}
    assert (policies[1] <= policies[0]).all()
    assert found == pytest.approx(2 * ratio + 0.5 * divergence + 0.5 * np.mean(distances), rel=1e-6)
    assert all(b.reducer.policy_BP is None for b in model.blocks if isinstance(b.reducer, DynamicViTRoute))


def test_the_choice_of_a_dropped_token_of_dynamicvit_has_a_derivative():
    candidate = Candidate(architecture=A, tokens=DynamicViT(keep=0.5, blocks=(2,)))
    model, batch, _ = training(candidate)
    route = model.blocks[1].reducer
    assert isinstance(route, DynamicViTRoute)
    route.choice[-1].weight.data.mul_(0)
    (logits_BK,) = model.forward_heads(batch.images_BCHW)
    logits_BK.square().sum().backward()
    assert route.choice[-1].bias.grad.abs().sum() > 0


def test_ltmp_pulls_the_macs_towards_the_target():
    """10 (MACs at the mean number of tokens / MACs at all - target)^2."""
    candidate = Candidate(architecture=A, tokens=LTMP(target=0.4, blocks=(1, 2)))
    model, batch, outputs = training(candidate)
    reducers = [b.reducer for b in model.blocks if isinstance(b.reducer, LTMPReducer)]
    for one in reducers:
        one.merge.data.fill_(0.4 / GAIN)
        one.drop.data.fill_(0.7 / GAIN)
    with token_losses(model, candidate, model) as (term,):
        model.forward_heads(batch.images_BCHW)
        shares = [float(one.left.detach()) for one in reducers]
        found = term(outputs, batch)
    assert 0 < min(shares) <= max(shares) < 1
    n = [17.0, 17 * shares[0], 17 * shares[0] * shares[1]]
    inside = [17.0, n[1], n[2]]
    after = [n[1], n[2], n[2]]
    spent = sum(4 * x * 144 + 2 * x * x * 12 + 2 * y * 12 * 24 for x, y in zip(inside, after, strict=True))
    whole = 3 * (4 * 17 * 144 + 2 * 17 * 17 * 12 + 2 * 17 * 12 * 24)
    assert float(found.detach()) == pytest.approx(10 * (spent / whole - 0.4) ** 2, rel=1e-9)
    found.backward()
    for one in reducers:  # more merging and dropping costs less, and the target is below
        assert one.merge.grad < 0
        assert one.drop.grad < 0


def test_a_step_has_the_derivative_of_a_sigmoid():
    v = torch.tensor([-0.3, 0.0, 0.05], dtype=torch.float64, requires_grad=True)
    y = step(v)
    assert y.tolist() == [0.0, 0.0, 1.0]
    y.sum().backward()
    s = [1 / (1 + math.exp(-x / 0.1)) for x in (-0.3, 0.0, 0.05)]
    assert v.grad is not None
    np.testing.assert_allclose(v.grad.numpy(), [p * (1 - p) / 0.1 for p in s], rtol=1e-12)


def test_what_iared_keeps_and_how_probable_that_was():
    """Of the patches there: the share that stays, and the mean of log I where it stays, log(1 - I) where not."""
    reducer = IARedReducer(0.5, width=12, heads=3, num_prefix=1).train()
    informs_BP = torch.rand(3, 7)
    there_BP = torch.tensor([[True] * 7, [True] * 4 + [False] * 3, [True] * 5 + [False] * 2])
    keep_BP = reducer._drawn(informs_BP, there_BP)
    assert not keep_BP[~there_BP].any()
    for i, count in enumerate((7, 4, 5)):
        stays, informs = keep_BP[i, :count].tolist(), informs_BP[i, :count].tolist()
        logs = [math.log(p if stay else 1 - p) for p, stay in zip(informs, stays, strict=True)]
        assert float(reducer.kept_B[i]) == pytest.approx(sum(stays) / count)
        assert float(reducer.log_prob_B[i]) == pytest.approx(sum(logs) / count, rel=1e-5)
    reducer._drawn(torch.ones(3, 7), there_BP)
    assert reducer.kept_B.tolist() == [1.0, 1.0, 1.0], "whatever the other images have left"


def test_iared_rewards_right_answers_by_what_they_save():
    candidate = Candidate(architecture=A, tokens=IARed(penalty=0.25, blocks=(1, 3)))
    model, batch, _ = training(candidate)
    outputs = Outputs(cls_BK=torch.eye(3).double()[[0, 1, 1, 0]])  # the third answer is wrong
    reducers = [b.reducer for b in model.blocks if isinstance(b.reducer, IARedReducer)]
    with token_losses(model, candidate, model) as (term,):
        model.forward_heads(batch.images_BCHW)
        kept = np.mean([one.kept_B.numpy() for one in reducers], axis=0)
        logs = np.sum([one.log_prob_B.detach().numpy() for one in reducers], axis=0)
        found = term(outputs, batch)
    answers = outputs.cls_BK.numpy().argmax(axis=1)
    reward = [1 - kept[i] ** 2 if answers[i] == [0, 1, 2, 0][i] else -0.25 for i in range(4)]
    expected = -np.mean([(reward[i] - np.mean(reward)) * logs[i] for i in range(4)])
    assert len(set(reward)) > 2
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)


def test_a_learned_score_gets_the_derivative_along_its_patch():
    """d loss / d p_i = x_i . d loss / d x_i of a kept patch; nothing of a dropped one; and the value stays."""
    torch.manual_seed(0)

    def first_two(x_BND, attention, size_BN):
        return x_BND[:, :3], None

    wrapped = LearnedScoreReducer(first_two, 6, 1).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    from vitsearch.models import AttentionState

    state = AttentionState(*torch.randn(3, 2, 1, 5, 6).double(), 1.0, None)
    out, _ = wrapped.train()(x, state, None)
    torch.testing.assert_close(out, x[:, :3], rtol=0, atol=0)
    scores = wrapped.network(x[:, 1:]).squeeze(-1).sigmoid()
    (2 * out).sum().backward()
    expected = torch.autograd.grad(
        scores,
        list(wrapped.parameters()),
        grad_outputs=torch.cat([2 * x[:, 1:3].sum(-1), torch.zeros(2, 2)], dim=1).double(),
    )
    for parameter, gradient in zip(wrapped.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_chance_that_a_rank_survives_learned_rates():
    """sum over k < n - t of rho_k, and the derivative of the chosen ranks is that of this sum."""
    torch.manual_seed(0)
    one = DiffRateLearnedReducer(16, num_prefix=1).train()
    one.prune_C.data.copy_(torch.randn(16) / GAIN)
    one.refresh()
    pruned = one.rates[0]
    assert 0 < pruned < 12
    stays_P, _ = one.survival(16, 12, pruned, 0, torch.float32)
    assert stays_P.tolist() == [1.0] * (12 - pruned) + [0.0] * (4 + pruned)
    rho = softmax(GAIN * one.prune_C.detach().numpy())
    assert pruned == round(float((np.arange(16) * rho).sum()))
    (gradient,) = torch.autograd.grad(stays_P[5], one.prune_C)
    survives = rho[: 12 - 5].sum()
    expected = [GAIN * rho[k] * ((k < 12 - 5) - survives) for k in range(16)]
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-4, atol=1e-5)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
