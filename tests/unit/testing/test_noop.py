from __future__ import annotations

import inspect

from vitsearch.candidate import Architecture, Candidate
from vitsearch.config import TargetSpec, TrainSpec
from vitsearch.messages import ProfileRequest, TrialRequest, TrialResult
from vitsearch.testing import NoopTrainer, noop_profile, noop_result
from workers.trainer import Trainer

SMALL, LARGE = (
    Candidate(
        architecture=Architecture(
            image_size=8, in_chans=1, num_classes=10, patch_size=4, width=16, depth=depth, heads=2
        )
    )
    for depth in (1, 4)
)


def request(candidate: Candidate) -> TrialRequest:
    return TrialRequest(
        trial=3, candidate=candidate, train=TrainSpec(), seed=1, data_fingerprint="f", artifact_dir="x"
    )


def test_it_answers_as_a_trainer_does() -> None:
    def methods(kind: type[object]) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        public = {name: list(inspect.signature(f).parameters) for name, f in found if not name.startswith("_")}
        # Ray adds one to a class that was made an actor earlier in this process
        return {name: [p for p in parameters if p != "_ray_trace_ctx"] for name, parameters in public.items()}

    mine, theirs = methods(NoopTrainer), methods(Trainer)
    assert mine == {name: theirs.get(name) for name in mine}
    assert set(mine) >= {"ping", "run", "report"}


def test_its_results_are_those_of_noop_result() -> None:
    found = TrialResult.model_validate_json(NoopTrainer().run(request(SMALL).model_dump_json()))
    assert found == noop_result(request(SMALL))
    assert found.trial == 3


def test_more_work_is_slower_and_more_accurate() -> None:
    target = TargetSpec(name="desk", batch_size=2)
    small, large = (
        noop_profile(ProfileRequest(trial=0, artifact_dir="x", candidate=c, target=target)) for c in (SMALL, LARGE)
    )
    assert small.latency_ms_p50 < large.latency_ms_p50
    assert small.images_per_s > large.images_per_s
    assert small.peak_memory_mb < large.peak_memory_mb
    assert small.conditions.target == "desk"
    assert noop_result(request(SMALL)).accuracy < noop_result(request(LARGE)).accuracy
