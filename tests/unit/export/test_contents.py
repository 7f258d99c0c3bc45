from pathlib import Path

import pytest

from tests.unit.candidate.factory import micro
from tests.unit.export.factory import PROFILE
from vitsearch.config import JobSpec
from vitsearch.cost import cost_of
from vitsearch.errors import ExportError
from vitsearch.export import SimulatedBits, facts_of
from vitsearch.messages import TrialFailure, TrialResult
from vitsearch.storage import StudyRecord, TrialRecord

JOB = JobSpec.model_validate(
    {"name": "demo", "dataset": {"kind": "digits"}, "space": "digits", "train": {"epochs": 4}, "seed": 5}
)
STUDY = StudyRecord(id=1, name="demo", job=JOB, state="finished", data=None, elapsed_s=1.0)


def result(accuracy: float, sha256: str, **changes) -> TrialResult:
    return TrialResult(
        trial=2, accuracy=accuracy, loss=0.1, dense_accuracy=0.9, train_s=1, total_s=2, num_params=10,
        weights_sha256=sha256 * 64, **({"epochs_run": 4} | changes),
    )  # fmt: skip


def trial(**changes) -> TrialRecord:
    candidate = micro()
    values = {
        "number": 2, "state": "told", "kind": "evaluate", "candidate": candidate, "cost": cost_of(candidate),
        "draw": {}, "outcome": result(0.8, "a"), "figures": {"eer_pct": 1.5}, "profiles": {"local": PROFILE},
    }  # fmt: skip
    return TrialRecord.model_validate(values | changes)


def test_a_model_of_the_search_has_no_test_accuracy():
    facts = facts_of(STUDY, trial())
    assert (facts.study, facts.trial, facts.seed, facts.epochs) == ("demo", 2, 5, 4)
    assert (facts.accuracy_val, facts.accuracy_test) == (0.8, None)
    assert facts.weights_sha256 == "a" * 64
    assert facts.profiles == (PROFILE,)


def test_a_bundle_holds_no_password_of_the_recipe():
    train = {"init": "pretrained", "pretrained": {"bundle": "https://me:geheim@h/b.zip"}}
    secret = JobSpec.model_validate({**JOB.model_dump(), "train": {**JOB.train.model_dump(), **train}})
    facts = facts_of(STUDY.model_copy(update={"job": secret}), trial())
    assert facts.train.pretrained is not None
    assert facts.train.pretrained.bundle == "https://***@h/b.zip"


def test_a_retrained_model_has_the_weights_and_epochs_of_the_retraining():
    final = result(0.85, "b", split="test", epochs_run=12)
    facts = facts_of(STUDY, trial(final=final))
    assert (facts.accuracy_val, facts.accuracy_test) == (0.8, 0.85)
    assert facts.weights_sha256 == "b" * 64
    assert facts.epochs == 12


def test_a_failed_retraining_leaves_the_model_of_the_search():
    failure = TrialFailure(trial=2, stage="train", failure="nan_loss", message="no")
    facts = facts_of(STUDY, trial(final=failure))
    assert facts.accuracy_test is None
    assert facts.weights_sha256 == "a" * 64


@pytest.mark.parametrize("outcome", [None, TrialFailure(trial=2, stage="train", failure="nan_loss", message="no")])
def test_a_trial_without_a_model_cannot_be_exported(outcome):
    with pytest.raises(ExportError, match="trial 2 of study 'demo' has no trained model"):
        facts_of(STUDY, trial(outcome=outcome))


def test_simulated_bits_list_every_width_below_32():
    assert not SimulatedBits.of(micro(), micro().precision).any
    mixed = micro(precision={"weight_bits": [8, 4, 4, 32], "activation_bits": 16})
    assert SimulatedBits.of(mixed, mixed.precision) == SimulatedBits(weight_bits=(4, 8), activation_bits=(16,))


def test_facts_that_are_damaged_name_the_trial_and_what_is_wrong(tmp_path: Path):
    from tests.unit.report.factory import report

    found = report(tmp_path)
    trial = found.front[0]
    assert isinstance(trial.outcome, TrialResult)
    broken = trial.model_copy(update={"outcome": trial.outcome.model_copy(update={"weights_sha256": "?"})})
    with pytest.raises(ExportError, match=rf"holds of trial {trial.number} is damaged: weights_sha256"):
        facts_of(found.study, broken)
