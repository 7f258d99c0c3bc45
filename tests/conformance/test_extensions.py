"""A new sampler, data set, runtime, pruner and token reducer: a line in a table each, and a search uses them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import optuna
import pytest
import torch
from pydantic import Field
from torch import Tensor

from vitsearch.candidate import (
    PRUNERS,
    SCORES,
    TOKEN_RULES,
    Architecture,
    Candidate,
    NoReduction,
    ScoreKind,
    TokenRule,
    TopK,
)
from vitsearch.compress import REDUCERS, PruneContext
from vitsearch.compress.tokens.scores import SCORE_KERNELS
from vitsearch.compress.weights import Ranked
from vitsearch.compress.weights.magnitude import rank_magnitude
from vitsearch.config import (
    DATASETS,
    RUNTIMES,
    SAMPLERS,
    DatasetKind,
    DatasetSpec,
    JobSpec,
    RuntimeKind,
    SamplerKind,
    TargetSpec,
    parse,
)
from vitsearch.errors import InputError
from vitsearch.models import AttentionState, TokenReducer, VisionTransformer
from vitsearch.profile import Model, Runnable, run_profile
from vitsearch.report import space_of
from vitsearch.search import Driver, InlineExecutor, Study
from vitsearch.storage import DataSummary, StudyStore, database_url, open_engine
from vitsearch.testing.reducers import REDUCER_CHECKS, architectures, check_export, check_identity
from vitsearch.train.data import load_dataset
from vitsearch.train.data.readers import RawImages, RawPart
from vitsearch.train.tensors import TensorData
from vitsearch.trial import TrialContext, run_trial

CALLS: list[str] = []


class FirstPatches(TokenRule):
    """Drop the last patches after the first block."""

    reducer: Literal["first"] = "first"
    drop: Annotated[int, Field(ge=0)] = 2

    @classmethod
    def identity(cls) -> Self:
        return cls(drop=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(), cls(drop=20))

    @property
    def sees_positions(self) -> bool:
        return True

    def resolved(self, architecture: Architecture) -> Self | NoReduction:
        return self if self.token_counts(architecture)[-1] < architecture.num_tokens else NoReduction()

    def active_blocks(self, depth: int) -> tuple[int, ...]:
        return (1,)

    def tokens_after(self, num_tokens: int, architecture: Architecture, block: int) -> int:
        return max(architecture.num_prefix_tokens + 1, num_tokens - self.drop)


class FirstPatchesReducer:
    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens

    def __call__(
        self, x_BND: Tensor, attention: AttentionState, size_BN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        size_BN = torch.ones_like(x_BND[..., 0]) if size_BN is None else size_BN
        return x_BND[:, : self.num_tokens], size_BN[:, : self.num_tokens]


def build_first(rule: FirstPatches, architecture: Architecture) -> dict[int, TokenReducer]:
    CALLS.append("reducer")
    counts = rule.token_counts(architecture)
    return {1: FirstPatchesReducer(counts[1])} if counts[1] < counts[0] else {}


def build_sampler(seed: int, population: int) -> optuna.samplers.BaseSampler:
    CALLS.append("sampler")
    return optuna.samplers.QMCSampler(seed=seed)


def read_noise(spec: DatasetSpec, image_size: int, /) -> RawImages:
    CALLS.append("reader")
    generator = np.random.default_rng(0)
    images_NHWC = generator.integers(0, 256, (80, image_size, image_size, 1), dtype=np.uint8)
    return RawImages(
        train=RawPart(images_NHWC=images_NHWC, labels_N=np.arange(80, dtype=np.int64) % 2), class_names=("a", "b")
    )


def load(model: Model, target: TargetSpec) -> Runnable:
    CALLS.append("runtime")
    return Runnable(lambda images_BCHW: images_BCHW)


def rank(model: VisionTransformer, context: PruneContext) -> Ranked:
    CALLS.append("pruner")
    return rank_magnitude(model, context)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOKEN_RULES, "first", FirstPatches)
    monkeypatch.setitem(REDUCERS, "first", build_first)
    monkeypatch.setitem(PRUNERS, "mine", f"{__name__}:rank")
    monkeypatch.setitem(SAMPLERS, "mine", SamplerKind(build=f"{__name__}:build_sampler"))
    monkeypatch.setitem(DATASETS, "noise", DatasetKind(reader=f"{__name__}:read_noise"))
    monkeypatch.setitem(RUNTIMES, "mine", RuntimeKind(load=f"{__name__}:load", file="weights", library="pytorch"))
    CALLS.clear()


JOB = {
    "name": "mine",
    "dataset": {"kind": "noise"},
    "space": {
        "fixed": {
            "architecture.image_size": 8, "architecture.depth": 2, "architecture.width": 16,
            "architecture.heads": 2, "architecture.patch_size": 2, "tokens.reducer": "first",
            "sparsity.method": "mine", "sparsity.heads_ratio": 0.5,
        },
        "dimensions": {"tokens.drop": {"low": 1, "high": 9}},
    },
    "objectives": ["accuracy", "latency"],
    "search": {"sampler": "mine", "trials": 2},
    "train": {"epochs": 1, "finetune_epochs": 0, "autocast": "fp32"},
    "targets": [{"runtime": "mine", "warmup": 0, "repeats": 3}],
}  # fmt: skip


@pytest.mark.usefixtures("tables")
def test_a_search_uses_what_the_tables_name(tmp_path: Path) -> None:
    job = parse(JobSpec, JOB, where="job.yaml")
    data = load_dataset(job.dataset, image_size=8, seed=job.seed)
    summary = DataSummary(
        fingerprint=data.fingerprint, class_names=data.class_names, in_chans=1, image_size=8, mean=data.mean,
        std=data.std, num_train=len(data.train), num_val=len(data.val), num_test=len(data.test),
        chance_accuracy=0.5,
    )  # fmt: skip
    store = StudyStore.create(open_engine(database_url(tmp_path)), job)
    store.acquire()
    store.set_data(summary)
    tensors = TensorData(data, torch.device("cpu"))
    executor = InlineExecutor(
        lambda request: run_trial(request, TrialContext(data=tensors)),
        lambda request: run_profile(request, {"weights": Path(request.artifact_dir) / "model.safetensors"}),
    )
    Driver(Study(store, job, space_of(job, summary), summary), executor, tmp_path).run()

    trials = [trial for trial in store.trials() if trial.kind == "evaluate"]
    assert [trial.succeeded for trial in trials] == [True, True]
    assert {trial.candidate.tokens.reducer for trial in trials} == {"first"}
    assert all(trial.cost.tokens[-1] < trial.cost.tokens[0] for trial in trials)
    assert set(CALLS) == {"sampler", "reader", "runtime", "pruner", "reducer"}


@pytest.mark.usefixtures("tables")
def test_the_reducer_suite_takes_it_as_it_is() -> None:
    for architecture in architectures(FirstPatches()).values():
        check_identity(FirstPatches, architecture)
        for rule in FirstPatches.examples():
            for check in REDUCER_CHECKS:
                check(rule, architecture)
    check_export(FirstPatches(), architectures(FirstPatches())["cls"])


def test_a_score_is_a_line_in_two_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORES, "rms", ScoreKind("nothing", needs_class_token=False))
    monkeypatch.setitem(
        SCORE_KERNELS, "rms", lambda x_BND, _, num_prefix: x_BND[:, num_prefix:].square().mean(dim=-1)
    )
    rule = TopK(k=9, score="rms", rest="merge")
    for architecture in architectures(rule).values():
        for check in REDUCER_CHECKS:
            check(rule, architecture)


@pytest.mark.usefixtures("tables")
def test_the_schema_lists_it() -> None:
    parts = JobSpec.model_json_schema()["$defs"]
    assert parts["SearchSpec"]["properties"]["sampler"]["enum"] == list(SAMPLERS)
    assert parts["DatasetSpec"]["properties"]["kind"]["enum"] == list(DATASETS)
    assert parts["TargetSpec"]["properties"]["runtime"]["enum"] == list(RUNTIMES)
    assert "mine" in SAMPLERS
    parts = Candidate.model_json_schema()
    assert [one["title"] for one in parts["properties"]["tokens"]["oneOf"]][-1] == "FirstPatches"
    assert parts["$defs"]["Sparsity"]["properties"]["method"]["enum"] == ["none", *PRUNERS]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"search": {"sampler": "nsga"}},
            "search.sampler: input should be .*, 'tpe' or 'gp', but got 'nsga'; did you mean",
        ),
        ({"dataset": {"kind": "digit"}}, "dataset.kind: .* 'huggingface', but got 'digit'; did you mean 'digits'"),
        (
            {"targets": [{"runtime": "torch"}]},
            "runtime: .* 'pytorch', .* or 'tensorrt', but got 'torch'",
        ),
        ({"search": {"sampler": 3}}, "search.sampler: input should be a valid string, but got 3"),
        ({"dataset": {"kind": "npz"}}, "dataset.kind=npz needs dataset.path"),
        ({"dataset": {"kind": "huggingface"}}, "kind=huggingface needs dataset.path or dataset.name"),
    ],
)
def test_a_name_that_no_table_has_is_refused(change: dict[str, object], message: str) -> None:
    job = {"name": "mine", "dataset": {"kind": "digits"}, "space": "vit_micro_8", **change}
    with pytest.raises(InputError, match=message):
        parse(JobSpec, job, where="job.yaml")
