"""The commands that need no search: exit codes, both output streams, start-up time."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from sqlalchemy import Engine
from typer.testing import CliRunner

from tests.command_line import PROGRAM, vitsearch
from tests.unit.report import factory
from vitsearch.cli.main import app
from vitsearch.cli.run_folder import new_study
from vitsearch.cli.run_folder import write_job as write_study_job
from vitsearch.config import load_job
from vitsearch.errors import InputError, StudyError

HELP_S = 0.5
JOB = {"name": "j", "dataset": {"kind": "digits"}, "space": "vit_micro_8"}


def process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def write_job(folder: Path, **overrides: object) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**JOB, **overrides}), encoding="utf-8")
    return path


def test_eer_prints_the_published_figure_of_castling() -> None:
    found = vitsearch("eer", "--params-m", "24.1", "--flops-g", "4.5")
    assert found.returncode == 0
    assert found.stdout.strip() == "26.7 %"


@pytest.mark.parametrize(
    "arguments",
    [
        ["eer", "--params-m", "24.1", "--flops-g", "4.5"],
        ["eer"],
        ["run", "nowhere.yaml", "--out", "x"],
        ["run", "job.yaml", "--out", "x", "--trials", "0"],
        ["run", "job.yaml"],
        ["spaces", "--json"],
        ["predict", "nowhere", "x.png"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_a_process_says_and_ends_with_the_same(arguments: list[str]) -> None:
    """As most tests of this file ask in their own."""
    alone, within = process(*arguments), vitsearch(*arguments)
    assert (alone.returncode, alone.stdout, alone.stderr) == (within.returncode, within.stdout, within.stderr)


def test_a_command_in_this_process_leaves_no_connection_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory.report(tmp_path, trials=1)
    write_study_job(factory.job(), tmp_path)
    closed: list[Engine] = []
    monkeypatch.setattr(Engine, "dispose", lambda engine, close=True: closed.append(engine))  # noqa: ARG005
    assert vitsearch("pareto", tmp_path).returncode == 0
    assert len(closed) == 1


def test_eer_as_json_over_all_four_metrics() -> None:
    figures = ["--params-m", "24.1", "--flops-g", "4.5", "--bits", "32", "--size-mb", "96.4"]
    found = json.loads(vitsearch("eer", *figures, "--json").stdout)
    assert found["eer_pct"] == pytest.approx(45.65, abs=0.01)


def test_eer_against_a_reference_of_ones_own(tmp_path: Path) -> None:
    reference = tmp_path / "reference.yaml"
    reference.write_text("{name: mine, params_m: 10, flops_g: 2}", encoding="utf-8")
    found = vitsearch("eer", "--params-m", "5", "--flops-g", "1", "--reference", reference, "--json")
    assert json.loads(found.stdout)["eer_pct"] == pytest.approx(50)


def test_cost_and_eer_of_a_candidate_file_agree(tmp_path: Path) -> None:
    architecture = {
        "image_size": 224, "in_chans": 3, "num_classes": 1000, "patch_size": 16, "depth": 12, "width": 384,
        "heads": 6,
    }  # fmt: skip
    path = tmp_path / "candidate.json"
    path.write_text(json.dumps({"architecture": architecture}), encoding="utf-8")
    cost = json.loads(vitsearch("cost", path, "--json").stdout)
    assert cost["num_params"] == 22_050_664
    assert round(cost["num_macs"] / 1e9, 2) == 4.61
    assert json.loads(vitsearch("eer", path, "--json").stdout)["eer_pct"] == pytest.approx(cost["eer_pct"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eer"], "needs either a candidate file or figures"),
        (["cost", "missing.json"], "the file does not exist"),
        (["spaces", "vit_micro_9"], "did you mean 'vit_micro_8'?"),
        (["pareto", "nowhere"], "holds no study"),
        (["resume", "nowhere"], "holds no study"),
        (["predict", "nowhere", "x.png"], "nowhere"),
        (["pareto", "nowhere", "--landmarks"], "--landmarks: needs a picture"),
        (["eer", "missing.json", "--params-m", "3"], "not both"),
        (["eer", "--params-m", "inf", "--json"], "needs figures that are finite"),
        (["eer", "--params-m", "1e305", "--flops-g", "1"], "needs figures that are finite"),
        (["pareto", "nowhere", "--address", "http://h:1"], "--address: says where to ask for a study by its name"),
        (["show", "nowhere", "--database", "sqlite:///x.db"], "--database: says where to ask"),
        (["resume", "nowhere", "--database", "sqlite:///x.db", "--json"], "--database: says where to ask"),
        (["resume", "nowhere", "--study", "x"], "a submission's ID with --address, or --study NAME"),
        (["resume", ".", "--address", "http://h:1"], "--address: says where to ask for a study by its name"),
        (["run", "nowhere.yaml", "--out", "x"], "the file does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    found = vitsearch(*arguments)
    assert found.returncode == 2
    assert message in found.stderr
    assert "Traceback" not in found.stderr
    assert found.stdout == ""


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"serch": {}}, ["serch", "is not a known field", "did you mean 'search'?"]),
        ({"search": {"trials": "many"}}, ["search.trials", "many"]),
        ({"search": {"sampler": "nsga4"}}, ["search.sampler", "did you mean 'nsga"]),
        (
            {"space": {"preset": "vit_micro_8", "fixed": {"architecture.heads": 0}}},
            ["space.fixed.architecture.heads", "0", "write 1 or more"],
        ),
        ({"space": "vit_micro_9"}, ["space.preset", "'vit_micro_9'", "did you mean 'vit_micro_8'?"]),
        ({"space": {"preset": "vit_micro_8", "drop": ["x"]}}, ["space.drop", "'x'", "its dimensions are"]),
        ({"space": {"preset": "vit_micro_8", "fixed": {"tokens.x": 1}}}, ["space.fixed.tokens.x", "not a known"]),
        ({"space": {"dimensions": {}}}, ["space.fixed.architecture.image_size", "is required; add it"]),
        ({"train": {"recipe": "deitt"}}, ["train.recipe", "'deitt'", "did you mean 'deit'?"]),
        ({"objectives": ["accuracy"]}, ["objectives"]),
        ({"objectives": ["eer", "eer"]}, ["objectives: must differ"]),
        ({"dataset": {"kind": "imagefolder"}}, ["dataset", "path"]),
        ({"storage": {"url": "foo"}}, ["storage.url", "'foo'", "postgresql+psycopg://"]),
        ({"storage": {"url": "nosuch://h/db"}}, ["storage.url", "nosuch", "postgresql+psycopg://"]),
        ({"tracking": {"uri": "not a url"}}, ["tracking.uri", "'not a url'", "http://HOST:5000"]),
        ({"constraints": [{"metric": "accuracy", "min": 55}]}, ["constraints.0.min", "did you mean 0.55?"]),
    ],
)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_bad_job_names_the_field_and_creates_nothing(
    tmp_path: Path, command: str, overrides: dict[str, object], words: list[str]
) -> None:
    job, out = write_job(tmp_path, **overrides), tmp_path / "out"
    found = vitsearch(command, job, *(["--out", out] if command == "run" else []))
    assert found.returncode == 2, found.stderr
    assert all(word in found.stderr for word in [f"error: {job}: ", *words]), found.stderr
    assert "Traceback" not in found.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        *(("run", "--seed", value) for value in ("3000000000", "-1", "x")),
        *((command, "--trials", value) for command in ("run", "resume") for value in ("0", "2.5")),
        *((command, "--workers", value) for command in ("run", "resume") for value in ("0", "-1")),
    ],
)
def test_a_bad_option_is_named_and_creates_nothing(tmp_path: Path, command: str, option: str, value: str) -> None:
    job, out = write_job(tmp_path), tmp_path / "out"
    if command == "resume":
        new_study(load_job(job), out)._engine.dispose()  # SQLite keeps files beside its own until then
    before = sorted(tmp_path.rglob("*"))
    found = vitsearch(command, *([job, "--out"] if command == "run" else []), out, option, value)
    assert found.returncode == 2
    assert option in found.stderr
    if not value.strip("-0123456789"):  # words are refused before the job is looked at, with the rule alone
        assert f"but got {value}; choose a" in found.stderr
    assert "Traceback" not in found.stderr
    assert found.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_taken_is_refused_and_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine", encoding="utf-8")
    found = vitsearch("run", write_job(tmp_path), "--out", out)
    assert found.returncode == 2
    assert "new or empty folder" in found.stderr
    assert [p.name for p in out.iterdir()] == ["precious.txt"]


def test_more_workers_than_processors_can_feed_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = vitsearch("run", write_job(tmp_path), "--out", out, "--workers", "9999")
    assert found.returncode == 2
    assert re.search(r"--workers: must be at most \d+ here.*processors, but got 9999", found.stderr)
    assert not out.exists()


def test_a_device_is_not_measured_on_this_machine_alone(tmp_path: Path) -> None:
    job, out = write_job(tmp_path, targets=[{"name": "jetson"}]), tmp_path / "out"
    found = vitsearch("run", job, "--out", out)
    assert found.returncode == 2
    assert "targets: names a device that joins a cluster" in found.stderr
    assert not out.exists()


def test_a_database_that_cannot_be_reached_leaves_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    job = write_job(tmp_path, storage={"url": f"sqlite:///{tmp_path}/none/study.db"})
    found = vitsearch("run", job, "--out", out)
    assert found.returncode == 1
    assert found.stderr.startswith("error: cannot open the database")
    assert found.stderr.count("\n") == 1
    assert not out.parent.exists()


def test_a_name_that_the_database_holds_leaves_no_folder(tmp_path: Path) -> None:
    job = load_job(write_job(tmp_path, storage={"url": f"sqlite:///{tmp_path}/study.db"}))
    new_study(job, tmp_path / "first")
    with pytest.raises(StudyError, match="already has a study named 'j'"):
        new_study(job, tmp_path / "new" / "second")
    assert not (tmp_path / "new").exists()


def test_validate_reads_the_data_when_asked(tmp_path: Path) -> None:
    found = vitsearch("validate", write_job(tmp_path), "--data")
    assert found.returncode == 0, found.stderr
    assert re.search(r"data: 1,\d+ training, \d+ validation and \d+ test images of 10 classes", found.stdout)
    broken = write_job(tmp_path, dataset={"kind": "npz", "path": "none.npz"})
    assert vitsearch("validate", broken).returncode == 0
    found = vitsearch("validate", broken, "--data")
    assert found.returncode == 2
    assert "none.npz" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"timm": "test_vit", "checkpoint": "none.safetensors"}, "checkpoint: the file does not exist, but got"),
        ({"timm": "no_such_net"}, "timm: must be a network that timm knows, but got 'no_such_net'"),
        ({"bundle": "nowhere"}, "bundle: must be the folder of a bundle, but got"),
    ],
)
@pytest.mark.parametrize("place", ["train.distill.teacher", "train.pretrained"])
def test_validate_looks_for_the_networks_that_are_named(
    tmp_path: Path, network: dict[str, str], message: str, place: str
) -> None:
    as_teacher = {"distill": {"method": "soft", "teacher": network}}
    train = as_teacher if place.endswith("teacher") else {"init": "pretrained", "pretrained": network}
    job = write_job(tmp_path, train=train)
    found = CliRunner().invoke(app, ["validate", str(job)])
    assert isinstance(found.exception, InputError)
    assert f"job.yaml: {place}.{message}" in str(found.exception)


def test_validate_looks_into_the_teacher_with_the_data(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    teacher = {"timm": "test_vit", "checkpoint": "broken.safetensors"}
    job = write_job(tmp_path, train={"distill": {"method": "soft", "teacher": teacher}})
    assert CliRunner().invoke(app, ["validate", str(job)]).exit_code == 0
    found = CliRunner().invoke(app, ["validate", str(job), "--data"])
    assert isinstance(found.exception, InputError)
    assert "train.distill.teacher.checkpoint: must be a state dict" in str(found.exception)


@pytest.mark.parametrize(("method", "counts"), [("deit", [1, 2]), ("deit", [2]), ("co_advise", [1, 2])])
def test_students_must_have_a_token_for_each_teacher_throughout(
    method: str, counts: list[int], tmp_path: Path
) -> None:
    teacher = {"timm": "test_vit"}
    second = {"second_teacher": {"timm": "test_resnet"}} if method == "co_advise" else {}
    fixed = {"architecture.image_size": 8, "architecture.patch_size": 4, "architecture.depth": 2,
             "architecture.width": 32, "architecture.heads": 2, "architecture.distilled": True}  # fmt: skip
    tokens = {"architecture.distillation_tokens": {"choices": counts}}
    job = write_job(
        tmp_path, space={"fixed": fixed, "dimensions": tokens},
        train={"distill": {"method": method, "teacher": teacher, **second}},
    )  # fmt: skip
    found = vitsearch("validate", job)
    assert found.returncode == 2
    assert f"train.distill.method: {method} needs " in found.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", [["eer", "--params-m", "3"], ["spaces", "vit_micro_8"]])
def test_a_full_disk_is_one_line(arguments: list[str]) -> None:
    command = [*PROGRAM, *arguments]
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.startswith("error: ")
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--png", "--html"])
def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path, option: str) -> None:
    factory.report(tmp_path, trials=4)
    write_study_job(factory.job(), tmp_path)
    for place in (tmp_path / "none" / "x.out", tmp_path):
        found = vitsearch("pareto", tmp_path, option, place)
        assert found.returncode == 2
        assert found.stderr.startswith(f"error: {option}: cannot be written (")
        assert found.stderr.count("\n") == 1


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    factory.report(tmp_path, trials=1)
    write_study_job(factory.job(), tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = vitsearch("ui", tmp_path, "--port", str(port))
    assert found.returncode == 1
    assert found.stderr == f"error: port {port} is taken on this machine; choose another with --port\n"


def test_a_run_without_mlflow_has_nothing_to_browse(tmp_path: Path) -> None:
    new_study(load_job(write_job(tmp_path, tracking={"enabled": False})), tmp_path / "out")
    found = vitsearch("ui", tmp_path / "out")
    assert found.returncode == 2
    assert (
        "was not recorded in MLflow (tracking.enabled: false); look at it with: vitsearch pareto" in found.stderr
    )


def test_an_edited_job_is_refused_by_resume(tmp_path: Path) -> None:
    out = tmp_path / "out"
    new_study(load_job(write_job(tmp_path)), out)
    file = out / "job.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("epochs: 10", "epochs: 20"), encoding="utf-8")
    found = vitsearch("resume", out)
    assert found.returncode == 2
    assert "train.epochs: is 20 here and 10 in the study" in found.stderr
    assert "with a new --out" in found.stderr


def test_validate_accepts_every_example(repository: Path) -> None:
    examples = sorted((repository / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        found = vitsearch("validate", example, "--json")
        assert json.loads(found.stdout)["valid"] is True, found.stderr


@pytest.mark.parametrize("overrides", [{}, {"search": {"trials": 0}}, {"space": "vit_micro_9"}])
def test_validate_creates_nothing(tmp_path: Path, overrides: dict[str, object]) -> None:
    job = write_job(tmp_path, **overrides)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    command = [*PROGRAM, "validate", str(job)]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path, env=imports_from_here()
    )
    assert found.returncode == (2 if overrides else 0), found.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def imports_from_here() -> dict[str, str]:
    """The environment for a process in another folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}


def test_the_schema_accepts_a_good_job_and_refuses_a_bad_one(repository: Path) -> None:
    schema = json.loads(vitsearch("schema").stdout)
    job = yaml.safe_load((repository / "examples" / "cifar10.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(job, schema)
    jsonschema.validate({**job, "space": {"preset": job["space"]}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**job, "serch": {}}, schema)


def test_spaces_lists_the_presets_and_shows_one_with_size_and_eer() -> None:
    names = json.loads(vitsearch("spaces", "--json").stdout)
    assert set(names) == {"vit_micro_8", "vit_tiny_32", "vit_small_64", "deit_224"}
    shown = json.loads(vitsearch("spaces", "vit_micro_8", "--json").stdout)
    assert shown["configurations"] > 1_000_000
    assert shown["continuous"] == ["tokens.tau"]
    assert 0 < shown["eer_pct"][0] < shown["eer_pct"][1] < 100


def test_the_eer_range_of_a_space_reaches_its_costliest_member() -> None:
    found = vitsearch("spaces", "deit_224").stdout
    assert "EER 4.41 % to 122.50 % (3 channels, 10 classes)" in found
    assert "least: d6 w192 h12 p16 m2 · tome r=64,64,34,17,8,4 · mlp 50% · heads 50% · W4A6" in found
    assert "most: d14 w768 h3 p14 m4" in found


@pytest.mark.slow
def test_doctor_tries_everything_and_says_what_works() -> None:
    found = process("doctor", "--json")
    checks = {check["check"]: check for check in json.loads(found.stdout)}
    assert found.returncode == 0, found.stdout
    tried = {
        "torch": "trains", "timm": "AdamW steps", "ray": "a task ran on", "optuna": "nsga2",
        "mlflow": "is recorded", "onnxruntime": "agrees", "database": "write-ahead log",
        "memory and disk": "GB disk",
    }  # fmt: skip
    for name, words in tried.items():
        assert checks[name]["ok"], checks[name]
        assert words in checks[name]["detail"]
        assert checks[name]["remedy"] == ""


def test_help_loads_nothing_heavy() -> None:
    probe = (
        "import sys\nfrom typer.testing import CliRunner\nfrom vitsearch.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'torch', 'timm', 'ray', 'mlflow', 'optuna', 'pydantic', 'sqlalchemy', 'numpy'}\n"
        "heavy &= set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def processor_s() -> float:
    """Processor time of the processes that have ended; unlike the time on the wall the same on a busy machine."""
    used = os.times()
    return used.children_user + used.children_system


@pytest.mark.slow
def test_the_help_of_every_command_comes_in_a_blink() -> None:
    commands = [
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    ]
    assert len(commands) >= 12
    for command in ["", *commands]:
        took_s: list[float] = []
        while not took_s or (min(took_s) > HELP_S and len(took_s) < 3):
            before = processor_s()
            found = process(*([command] if command else []), "--help")
            took_s.append(processor_s() - before)
            assert found.returncode == 0
            assert "Usage:" in found.stdout
        assert min(took_s) <= HELP_S, command
