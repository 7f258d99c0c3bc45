import csv
import io
from pathlib import Path
from typing import Any

from tests.unit.report import factory
from vitsearch.candidate import Candidate
from vitsearch.messages import Profile
from vitsearch.report import StudyReport
from vitsearch.report.tables import fate, flatten, front_markdown, front_table, trial_markdown, trials_csv


def rows_of(report: StudyReport) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(trials_csv(report))))


def test_one_row_for_each_trial(tmp_path: Path):
    job = factory.job(constraints=[{"metric": "eer", "max": 12}, {"metric": "accuracy", "min": 0.8}])
    report = factory.report(tmp_path, job, 60, fail_every=10)
    rows = rows_of(report)
    assert [int(row["trial"]) for row in rows] == list(range(60))
    assert {row["fate"] for row in rows} == {"done", "infeasible", "failed", "rejected"}
    assert {int(row["trial"]) for row in rows if row["on_front"] == "true"} == {t.number for t in report.front}
    assert [int(row["trial"]) for row in rows if row["knee"] == "true"] == [report.knee and report.knee.number]
    by_fate = {row["fate"]: row for row in rows}
    assert by_fate["failed"]["why"] == "train: nan_loss: the loss is NaN"
    assert by_fate["failed"]["accuracy"] == ""
    assert by_fate["rejected"]["why"].startswith("EER (%)")
    assert float(by_fate["rejected"]["eer_pct"]) > 12
    assert by_fate["infeasible"]["why"].endswith("is below 0.8")
    assert by_fate["done"]["why"] == ""
    assert float(by_fate["done"]["seconds"]) == 2.5


def test_a_row_gives_its_candidate_back(tmp_path: Path):
    report = factory.report(tmp_path, None, 5)
    for row, trial in zip(rows_of(report), report.trials, strict=True):
        assert int(row["architecture.width"]) == trial.candidate.architecture.width
        assert row["tokens.reducer"] == trial.candidate.tokens.reducer
        assert row["hash"] == trial.candidate.hash


def test_the_final_test_accuracy_has_its_own_column(tmp_path: Path):
    store = factory.new_store(tmp_path)
    factory.add_trials(store, 20)
    knee = factory.finalize(store, accuracy=0.9876)
    report = StudyReport.load(store)
    assert [row["test_accuracy"] for row in rows_of(report) if row["test_accuracy"]] == ["0.9876"]
    assert f"| {knee} **★ knee** |" in front_markdown(report)
    assert "98.76 %" in front_markdown(report)
    assert report.knee is not None
    assert "test accuracy, retrained at full length | 98.76 %" in trial_markdown(report.knee, report)


def test_a_duplicate_names_its_source(tmp_path: Path):
    store = factory.new_store(tmp_path)
    factory.add_trials(store, 1)
    first = store.trials()[0]
    twin = first.model_copy(
        update={"number": 1, "kind": "duplicate", "state": "told", "same_as": 0, "outcome": None, "figures": {}}
    )
    store.add_trial(twin)
    row = rows_of(StudyReport.load(store))[1]
    assert (row["fate"], row["why"]) == ("duplicate", "same candidate as trial 0")
    assert (row["accuracy"], float(row["eer_pct"])) == ("", first.figures["eer_pct"])


def test_waiting_and_running_trials(tmp_path: Path):
    store = factory.new_store(tmp_path)
    factory.add_trials(store, 1)
    first = store.trials()[0]
    for number in (1, 2):
        store.add_trial(first.model_copy(update={"number": number, "state": "asked"}))
    store.lease_trial(2, "w0", 1)
    assert [fate(trial, store.study().job) for trial in store.trials()] == ["done", "waiting", "running"]
    assert "1 running, 1 waiting" in front_markdown(StudyReport.load(store))


def test_the_front_as_markdown(tmp_path: Path):
    report = factory.report(tmp_path, None, 40)
    text = front_markdown(report)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(report.front)
    assert len({line.count("|") for line in table}) == 1
    assert text.count("★ knee") == 1
    assert "latency" not in table[0]
    assert "relative to ViT-B/16" in text
    assert "highest accuracy and lowest EER" in text
    assert "40 trials done" in text
    assert "are simulated" in text


def test_measured_latency_is_in_the_table_with_its_conditions(tmp_path: Path):
    report = factory.report(tmp_path, factory.job(objectives=["accuracy", "latency"]), 20)
    assert "| latency p50 |" in front_markdown(report)
    assert "1 thread, 5 warm-up and 30 measured calls, nothing else running" in trial_markdown(
        report.front[0], report
    )


def test_nothing_simulated_no_note(tmp_path: Path):
    fixed = {"precision.weight_bits": 32, "precision.activation_bits": 8}
    job = factory.job(space={"preset": "vit_micro_8", "fixed": fixed})
    report = factory.report(tmp_path, job, 10)
    assert "simulated" not in front_markdown(report)


def test_a_long_front_is_cut_at_whole_rows(tmp_path: Path):
    report = factory.report(tmp_path, factory.job(objectives=["accuracy", "macs"]), 150)
    whole, cut = front_markdown(report), front_markdown(report, max_chars=1500)
    assert len(cut) <= 1500 < len(whole)
    rows = [line for line in cut.splitlines() if line.startswith("|")][2:]
    assert all(row in whole for row in rows)
    assert f"… and {len(report.front) - len(rows)} more, in `trials.csv`." in cut


def test_an_empty_front_says_so(tmp_path: Path):
    assert "The front is empty" in front_markdown(factory.report(tmp_path, None, 0))


def test_a_reference_name_cannot_break_the_table(tmp_path: Path):
    job = factory.job(eer={"reference": {"name": "a|b<i>"}})
    assert "a\\|b&lt;i>" in front_markdown(factory.report(tmp_path, job, 3))


def test_flatten():
    candidate = Candidate.model_validate(
        {
            "architecture": {"image_size": 8, "in_chans": 1, "num_classes": 10, "patch_size": 2, "depth": 2,
                             "width": 32, "heads": 4},
            "precision": {"weight_bits": [8, 4], "activation_bits": 8},
        }
    )  # fmt: skip
    flat = flatten(candidate)
    assert flat["precision.weight_bits"] == "[8, 4]"
    assert flat["architecture.class_token"] is True
    assert "sparsity.mlp_units" not in flat  # None is left out
    assert flatten(candidate.architecture, "a")["a.depth"] == 2


def int8_profile(runtime: str, latency_ms: float, **more: Any) -> Profile:
    one = factory.profile(latency_ms)
    conditions = one.conditions.model_copy(update={"runtime": f"{runtime} 1.2.3"})
    return one.model_copy(update={"conditions": conditions, **more})


def test_the_front_names_the_fastest_runtime_of_each_model_and_what_it_gets_right(tmp_path: Path):
    target = {"runtime": "pytorch", "also": ["onnxruntime_int8_qdq", "pytorch_bf16"]}
    store = factory.new_store(tmp_path, factory.job(targets=[target]))
    factory.add_trials(store, 40)
    first, second, third, *_ = StudyReport.load(store).front
    slow = (int8_profile("pytorch", 3.0), int8_profile("pytorch_bf16", 2.0, accuracy=0.75))
    broken = {"onnxruntime_int8_dynamic": "RuntimeError: no kernel"}
    fast = int8_profile("onnxruntime_int8_qdq", 1.0, accuracy=0.875, others=slow, failed=broken)
    store.add_profiles(first.number, [fast], first.figures)
    store.add_profiles(second.number, [int8_profile("pytorch", 1.5)], second.figures)
    report = StudyReport.load(store)
    heading, rows = front_table(report)
    column = heading.index("fastest runtime")
    named = {row[0].split()[0]: row[column] for row in rows}
    assert named.pop(str(first.number)) == "onnxruntime_int8_qdq, 87.50 % correct"
    assert named.pop(str(second.number)) == "pytorch"
    assert named[str(third.number)] == ""
    by_number = {int(row["trial"]): row for row in rows_of(report)}
    assert by_number[first.number]["runtime"] == "onnxruntime_int8_qdq"
    assert by_number[first.number]["runtime_accuracy"] == "0.875"
    assert by_number[second.number]["runtime_accuracy"] == ""
    member = next(trial for trial in report.front if trial.number == first.number)
    sentences = [line for line in trial_markdown(member, report).splitlines() if line.startswith("- On local")]
    assert ["1.2.3" in line for line in sentences] == [True] * 3 + [False]
    assert sentences[3].endswith("onnxruntime_int8_dynamic could not be measured: RuntimeError: no kernel")
    assert "onnxruntime_int8_qdq" in sentences[0]
    assert sentences[0].endswith("87.50 % correct in this arithmetic, the fastest runtime")
    assert "pytorch_bf16" in sentences[1]
    assert "fastest" not in sentences[1] + sentences[2]


def test_one_runtime_needs_no_column(tmp_path: Path):
    store = factory.new_store(tmp_path)
    factory.add_trials(store, 5)
    first = StudyReport.load(store).front[0]
    store.add_profiles(first.number, [factory.profile(1.0)], first.figures)
    assert "fastest runtime" not in front_table(StudyReport.load(store))[0]
