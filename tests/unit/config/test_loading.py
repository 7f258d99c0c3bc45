from pathlib import Path

import pytest

from vitsearch.config import Spec, load_job, load_json, load_yaml, parse
from vitsearch.config.loading import MAX_FILE_BYTES, dump_yaml
from vitsearch.errors import InputError

JOB = "name: first\ndataset: {kind: digits}\nspace: vit_micro_8\n"


@pytest.fixture
def job_file(tmp_path: Path):
    def write(more: str = "", base: str = JOB) -> Path:
        path = tmp_path / "job.yaml"
        path.write_text(base + more, encoding="utf-8")
        return path

    return write


def broken(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_job(path)
    return caught.value


def test_a_job_of_three_lines_is_enough(job_file):
    job = load_job(job_file())
    assert job.name == "first"
    assert job.objectives == ("accuracy", "eer")


def test_unknown_key_is_one_error_with_file_path_rule_and_remedy(job_file):
    path = job_file("objektives: [accuracy, eer]\n")
    error = broken(path)
    assert error.where == str(path)
    assert error.field == "objektives"
    assert error.more == []
    assert str(error) == f"{path}: objektives: is not a known field; did you mean 'objectives'?"


@pytest.mark.parametrize(
    ("line", "field", "guess"),
    [
        ("search: {trails: 3}\n", "search.trails", "trials"),
        ("train: {epoch: 3}\n", "train.epoch", "epochs"),
        ("targets: [{runtim: pytorch}]\n", "targets.0.runtim", "runtime"),
        ("constraints: [{metric: eer, max: 3, minn: 2}]\n", "constraints.0.minn", "min"),
        ("eer: {reference: {flops: 3}}\n", "eer.reference.flops", "flops_g"),
    ],
)
def test_did_you_mean_reaches_into_nested_parts(job_file, line: str, field: str, guess: str):
    error = broken(job_file(line))
    assert error.field == field
    assert error.remedy == f"did you mean {guess!r}?"


def test_did_you_mean_inside_a_dimension(job_file):
    base = "name: a\ndataset: {kind: digits}\nspace:\n  dimensions:\n    tokens.tau: {low: 1, hihg: 2}\n"
    errors = [error := broken(job_file(base=base)), *error.more]
    found = {error.field: error.remedy for error in errors}
    assert found["space.dimensions.tokens.tau.hihg"] == "did you mean 'high'?"


def test_a_key_like_no_other_lists_the_known_ones(job_file):
    assert "known fields are" in broken(job_file("zzz: 1\n")).remedy


@pytest.mark.parametrize(
    ("line", "field", "value", "rule"),
    [
        ("search: {trials: many}\n", "search.trials", "many", "integer"),
        ("search: {trials: 2.5}\n", "search.trials", 2.5, "integer"),
        ("search: {trials: 0}\n", "search.trials", 0, "greater than or equal to 1"),
        ("train: {lr: -1}\n", "train.lr", -1, "greater than 0"),
        ("train: {lr: .inf}\n", "train.lr", float("inf"), "finite"),
        ("objectives: accuracy\n", "objectives", "accuracy", "a list"),
        ("search: 3\n", "search", 3, "named fields"),
        ("seed: -1\n", "seed", -1, "greater than or equal to 0"),
    ],
)
def test_wrong_types_and_impossible_values(job_file, line: str, field: str, value: object, rule: str):
    error = broken(job_file(line))
    assert (error.field, error.value) == (field, value)
    assert rule in error.rule
    assert repr(value) in str(error)


@pytest.mark.parametrize(
    ("line", "field", "value", "rule", "remedy"),
    [
        ('search: {trials: "5"}', "search.trials", "5", "a whole number", "write it without quotes"),
        ("search: {trials: true}", "search.trials", True, "a whole number", "write a number"),
        ("seed: false", "seed", False, "a whole number", "write a number"),
        ("train: {lr: '1e-3'}", "train.lr", "1e-3", "a number", "write it without quotes"),
        ("train: {lr: true}", "train.lr", True, "a number", "write a number"),
        ("train: {early_stop: 1}", "train.early_stop", 1, "true or false", "write true or false, without quotes"),
        ("tracking: {enabled: 'no'}", "tracking.enabled", "no", "true or false", "without quotes"),
        ("eer: {weights: [0.5, '0.5'], metrics: [params, macs]}", "eer.weights.1", "0.5", "a number", "quotes"),
        ("targets: [{name: a}, {name: b, threads: '2'}]", "targets.1.threads", "2", "whole", "quotes"),
        ("name: !!binary aGk=", "name", b"hi", "text", "put it in quotes"),
    ],
)
def test_a_value_of_another_kind_is_not_converted(job_file, line, field, value, rule, remedy):
    base = JOB.replace("name: first\n", "") if line.startswith("name") else JOB
    error = broken(job_file(line + "\n", base=base))
    assert (error.field, error.value) == (field, value)
    assert rule in error.rule
    assert remedy in error.remedy
    assert error.more == []


def test_every_value_of_another_kind_is_told_at_once(job_file):
    error = broken(job_file("seed: '3'\nsearch: {trials: '5', max_workers: true}\n"))
    assert [error.field, *(e.field for e in error.more)] == ["seed", "search.trials", "search.max_workers"]


def test_whole_numbers_may_have_a_point_and_numbers_may_be_whole(job_file):
    job = load_job(job_file("search: {trials: 5.0, time_limit_s: 60}\ntrain: {lr: 1, recipe: deit}\n"))
    assert (job.search.trials, job.search.time_limit_s, job.train.lr) == (5, 60.0, 1.0)


def test_values_inside_a_space_keep_their_kind(job_file):
    base = "name: a\ndataset: {kind: digits}\n"
    base += "space: {dimensions: {architecture.depth: {low: 1, high: 2, log: 'no'}}}\n"
    error = broken(job_file(base=base))
    assert (error.field, error.rule) == ("space.dimensions.architecture.depth.log", "must be true or false")


@pytest.mark.parametrize(
    "line",
    [
        *(
            "search: {trials: many}",
            "search: {trials: 2.5}",
            "search: {trials: 0}",
            "search: {trials: '5'}",
            "search: 3",
        ),
        *("train: {lr: .inf}", "train: {lr: fast}", "train: {early_stop: maybe}", "train: {optimizer: [adam]}"),
        *("train: {recipe: 5}", "train: {recipe: best}", "objectives: accuracy", "objectives: [accuracy]"),
        *("seed: 3000000000", "storage: {url: 3}", "targets: []", "targets: [{name: A B}]", "name: 3"),
        *("dataset: {kind: 3}", "dataset: {kind: digits, path: 3}", "name: " + 90 * "x"),
    ],
)
def test_every_message_ends_in_a_remedy(job_file, line: str):
    base = "".join(part + "\n" for part in JOB.splitlines() if part.partition(":")[0] != line.partition(":")[0])
    error = broken(job_file(line + "\n", base=base))
    assert error.where.endswith("job.yaml")
    assert error.field
    assert error.value is not None
    assert error.remedy, str(error)


def test_a_wrong_word_is_answered_with_the_nearest(job_file):
    error = broken(job_file("search: {sampler: nsga}\n"))
    assert error.field == "search.sampler"
    assert error.remedy.startswith("did you mean 'nsga")


def test_all_mistakes_are_told_at_once(job_file):
    error = broken(job_file("seed: -1\nsearch: {trials: 0}\n"))
    assert {error.field, *(e.field for e in error.more)} == {"seed", "search.trials"}


def test_union_members_do_not_show_in_paths(job_file):
    base = "name: a\ndataset: {kind: digits}\nspace: {fixed: {architecture.depth: [1]}}\n"
    error = broken(job_file(base=base))
    assert error.field == "space.fixed.architecture.depth"
    assert error.more == []


def test_yaml_errors_name_the_line(job_file):
    error = broken(job_file("search: [1\nseed: 2\n"))
    assert "must be valid YAML at line 5" in error.rule


def test_a_key_given_twice_is_refused(job_file):
    error = broken(job_file("seed: 1\nseed: 2\n"))
    assert "line 5" in error.rule
    assert "'seed' stands twice" in error.rule


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n"])
def test_a_file_without_named_fields(job_file, text: str):
    assert "named fields" in broken(job_file(base=text)).rule


def test_yaml_objects_are_never_built(job_file):
    assert "must be valid YAML" in broken(job_file("seed: !!python/object/apply:os.getpid []\n")).rule


def test_numbers_in_exponent_form_are_numbers(tmp_path: Path):
    path = tmp_path / "n.yaml"
    path.write_text("[1e-3, 1E5, -2e+1, 1.5e-3, 12, '1e3', 1e, e3, 0x1e3]", encoding="utf-8")
    assert load_yaml(path) == [1e-3, 1e5, -20.0, 1.5e-3, 12, "1e3", "1e", "e3", 0x1E3]


def test_merge_keys_still_work(tmp_path: Path):
    path = tmp_path / "m.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n", encoding="utf-8")
    assert load_yaml(path)["b"] == {"x": 3, "y": 2}


def test_a_missing_file_is_answered_with_a_near_name(job_file):
    path = job_file()
    error = broken(path.with_name("jobb.yaml"))
    assert error.rule == "the file does not exist"
    assert error.remedy == f"did you mean {path}?"


def test_a_missing_folder(tmp_path: Path):
    assert broken(tmp_path / "none" / "job.yaml").remedy == "check the path"


def test_a_folder_a_huge_file_and_a_binary_file_are_refused(tmp_path: Path):
    assert "not a folder" in broken(tmp_path).rule
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert "at most 4 MB" in broken(huge).rule
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in broken(binary).rule


def test_json_errors(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="must be valid JSON"):
        load_json(path)
    with pytest.raises(InputError) as caught:
        load_json(tmp_path / "none.json")
    assert caught.value.rule == "the file does not exist"


def test_data_paths_are_relative_to_the_job_file(tmp_path: Path):
    (tmp_path / "jobs").mkdir()
    path = tmp_path / "jobs" / "job.yaml"
    path.write_text("name: a\ndataset: {kind: npz, path: ../x.npz}\nspace: vit_micro_8\n", encoding="utf-8")
    assert load_job(path).dataset.path == tmp_path / "x.npz"
    path.write_text("name: a\ndataset: {kind: npz, path: /data/x.npz}\nspace: vit_micro_8\n", encoding="utf-8")
    assert load_job(path).dataset.path == Path("/data/x.npz")


class _Inner(Spec):
    tuple: int = 0  # a field may have a union member's name


class _Outer(Spec):
    int: _Inner = _Inner()


def test_fields_named_like_types_keep_their_place_in_the_path():
    with pytest.raises(InputError) as caught:
        parse(_Outer, {"int": {"tuple": "x"}}, where="f")
    assert caught.value.field == "int.tuple"


@pytest.mark.parametrize(
    "line",
    [
        "seed: !!bool x", "seed: !!int ''", "seed: !!timestamp x",
        "seed: !!float x", "? [a, b]\n: c", "seed: 2001-13-45",
        "seed: !!python/object/apply:os.getpid []", "search: !!binary x", "seed: " + "9" * 5000,
    ],
)  # fmt: skip
def test_a_value_that_is_not_what_its_tag_says_is_one_error(job_file, line: str):
    assert str(broken(job_file(line + "\n")))


@pytest.mark.parametrize("text", [r'"a\0b"', r'"\ud800"'])
@pytest.mark.parametrize("line", ["dataset: {{kind: npz, path: {}}}", "{}: 1", "tracking: {{experiment: {}}}"])
def test_text_that_no_path_and_no_terminal_takes_is_refused(tmp_path: Path, text: str, line: str):
    path = tmp_path / "job.yaml"
    path.write_text(f"name: a\n{line.format(text)}\n")
    assert "holds NUL or half a character" in str(broken(path))


@pytest.mark.parametrize("field", ["seed", "search", "objectives", "dataset", "constraints"])
def test_aliases_that_stand_for_billions_of_values_cost_nothing(tmp_path: Path, field: str):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    path = tmp_path / "job.yaml"
    path.write_text("\n".join([*lines, f"{field}: *i"]))
    assert len(str(broken(path))) < 5000


@pytest.mark.parametrize("name", ["~nosuchuser/x", "loop"])
def test_a_path_that_leads_nowhere_is_for_whoever_opens_it(job_file, tmp_path: Path, name: str):
    (tmp_path / "loop").symlink_to("loop")
    job = load_job(job_file(base=f"name: a\ndataset: {{kind: npz, path: {name}}}\nspace: vit_micro_8\n"))
    assert job.dataset.path == tmp_path / name


@pytest.mark.parametrize(
    "text", ["12e4", "1e-3", "1_0.5E+7", "1e5", "0x10", "12:30", "null", "yes", "2001-01-01", "é"]
)
def test_text_that_looks_like_a_number_is_read_back_as_text(tmp_path: Path, text: str):
    path = tmp_path / "job.yaml"
    written = {"name": text, "lr": 1e-5, "tracking": {"experiment": text, text: 1.5e300}}
    path.write_text(dump_yaml(written), encoding="utf-8")
    assert load_yaml(path) == written
