"""The losses of distillation against their formulas, in float64 numpy with loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vitsearch.config import DISTILLERS, DistillSpec, NetworkSpec
from vitsearch.errors import TrialError
from vitsearch.train.batches import Batch
from vitsearch.train.distill import distillation_loss
from vitsearch.train.losses import Outputs

B, K = 5, 7
GENERATOR = np.random.default_rng(0)
CLS, DIST, TEACHER, DIST2, TEACHER2 = (3 * GENERATOR.normal(size=(B, K)) for _ in range(5))
LABELS = GENERATOR.integers(0, K, B)
MIXED = GENERATOR.dirichlet(np.ones(K), B)


def log_softmax(z: np.ndarray) -> np.ndarray:
    return np.array([row - row.max() - np.log(sum(np.exp(v - row.max()) for v in row)) for row in z])


def cross_entropy(z: np.ndarray, targets: np.ndarray) -> float:
    """-1/B sum_b sum_k t_bk log softmax(z_b)_k."""
    logs = log_softmax(z)
    return -sum(targets[b, k] * logs[b, k] for b in range(B) for k in range(K)) / B


def one_hot(classes: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    found = np.full((B, K), smoothing / K)
    for b in range(B):
        found[b, classes[b]] += 1 - smoothing
    return found


def divergence(teacher: np.ndarray, student: np.ndarray, temperature: float) -> float:
    """T^2 KL(p_t || p_s), both softened, a mean over the batch."""
    p, q = np.exp(log_softmax(teacher / temperature)), np.exp(log_softmax(student / temperature))
    total = sum(p[b, k] * (np.log(p[b, k]) - np.log(q[b, k])) for b in range(B) for k in range(K))
    return temperature**2 * total / B


def measured(method: str, targets: np.ndarray, *, dist: int, smoothing: float = 0.0, **settings: Any) -> float:
    spec = DistillSpec.model_validate({"method": method, "teacher": {"timm": "any"}, **settings})
    said = [torch.from_numpy(one).log_softmax(-1) for one in (TEACHER, TEACHER2)]
    asked = [lambda _, answers=answers: answers for answers in said[: len(spec.teachers)]]
    loss = distillation_loss(spec, smoothing, *asked)
    batch = Batch(images_BCHW=torch.zeros(B, 1, 2, 2), targets=torch.from_numpy(targets), epoch=0, step=0, start=0)
    heads = tuple(torch.from_numpy(one) for one in (DIST, DIST2)[:dist])
    return float(loss(Outputs(cls_BK=torch.from_numpy(CLS), dist_BK=heads), batch))


@pytest.mark.parametrize("dist", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])
def test_soft(alpha: float, temperature: float, dist: bool) -> None:
    student = (CLS + DIST) / 2 if dist else CLS
    expected = (1 - alpha) * cross_entropy(student, one_hot(LABELS, 0.1))
    expected += alpha * divergence(TEACHER, student, temperature)
    found = measured("soft", LABELS, dist=dist, smoothing=0.1, alpha=alpha, temperature=temperature)
    assert found == pytest.approx(expected, abs=1e-12)


def test_soft_with_mixed_targets() -> None:
    expected = 0.5 * cross_entropy(CLS, MIXED) + 0.5 * divergence(TEACHER, CLS, 1.0)
    assert measured("soft", MIXED, dist=False, smoothing=0.1) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8])
def test_hard(alpha: float) -> None:
    expected = (1 - alpha) * cross_entropy(CLS, one_hot(LABELS, 0.2))
    expected += alpha * cross_entropy(CLS, one_hot(TEACHER.argmax(1)))
    assert measured("hard", LABELS, dist=False, smoothing=0.2, alpha=alpha) == pytest.approx(expected, abs=1e-12)


def test_deit_gives_each_head_its_own_target() -> None:
    expected = 0.5 * cross_entropy(CLS, one_hot(LABELS, 0.2)) + 0.5 * cross_entropy(
        DIST, one_hot(TEACHER.argmax(1))
    )
    assert measured("deit", LABELS, dist=True, smoothing=0.2) == pytest.approx(expected, abs=1e-12)


def test_deit_without_its_token_is_refused() -> None:
    with pytest.raises(TrialError, match=r"architecture\.distilled"):
        measured("deit", LABELS, dist=False)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("alpha", [0.0, 2 / 3, 1.0])
def test_co_advise_gives_each_token_a_teacher_of_its_own(alpha: float, temperature: float) -> None:
    expected = (1 - alpha) * cross_entropy(CLS, one_hot(LABELS, 0.2))
    expected += alpha / 2 * (divergence(TEACHER, DIST, temperature) + divergence(TEACHER2, DIST2, temperature))
    settings = {"alpha": alpha, "temperature": temperature, "second_teacher": {"timm": "other"}}
    found = measured("co_advise", LABELS, dist=2, smoothing=0.2, **settings)
    assert found == pytest.approx(expected, abs=1e-12)


def test_co_advise_needs_two_of_everything() -> None:
    with pytest.raises(TrialError, match="distillation_tokens: 2"):
        measured("co_advise", LABELS, dist=1, second_teacher={"timm": "other"})
    with pytest.raises(TrialError, match=r"architecture\.distilled: true$"):
        measured("deit", LABELS, dist=2)
    with pytest.raises(ValueError, match="add second_teacher"):
        DistillSpec(method="co_advise", teacher=NetworkSpec(timm="any"))
    with pytest.raises(ValueError, match="answers under co_advise alone, but method is soft"):
        DistillSpec(method="soft", teacher=NetworkSpec(timm="any"), second_teacher=NetworkSpec(timm="other"))


@pytest.mark.parametrize("dist", [False, True])
@pytest.mark.parametrize(
    "terms",
    [{"labels": 0.3, "soft": 0.5, "hard": 0.7}, {"soft": 2.0}, {"labels": 1.5, "hard": 0.25, "tokens": 9.0}],
)
def test_combined(terms: dict[str, float], dist: bool) -> None:
    """The term that listens to tokens is a summand of its own, with a test of its own."""
    student = (CLS + DIST) / 2 if dist else CLS
    expected = terms.get("labels", 0) * cross_entropy(student, one_hot(LABELS, 0.1))
    expected += terms.get("soft", 0) * divergence(TEACHER, student, 3.0)
    expected += terms.get("hard", 0) * cross_entropy(student, one_hot(TEACHER.argmax(1)))
    found = measured("combined", LABELS, dist=dist, smoothing=0.1, alpha=0.9, temperature=3.0, terms=terms)
    assert found == pytest.approx(expected, abs=1e-12)


def test_every_method_stands_here() -> None:
    assert set(DISTILLERS) == {"soft", "hard", "deit", "co_advise", "combined"}, "add a golden test of the new one"


def test_a_method_needs_a_teacher() -> None:
    with pytest.raises(ValueError, match="needs a teacher"):
        DistillSpec(method="soft")
    with pytest.raises(ValueError, match="either timm or bundle"):
        NetworkSpec()


def test_each_of_two_teachers_is_asked_by_a_recipe_that_is_valid_alone() -> None:
    """Workers read the recipe from JSON."""
    one, other = NetworkSpec(timm="any"), NetworkSpec(timm="other")
    both = DistillSpec(method="co_advise", teacher=one, second_teacher=other)
    for teacher in both.teachers:
        alone = DistillSpec.model_validate_json(both.of_teacher(teacher).model_dump_json())
        assert alone.teachers == (teacher,)
