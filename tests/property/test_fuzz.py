"""Job files, bundles and what a cluster answers, broken at random: only our own errors, and nothing outside.

The ordinary run tries 340 inputs. ``-m slow`` tries 10,800: 4,000 job files, 3,000 bundles, 1,200 answers of a
cluster, 1,200 archives of studies, 800 archives of images, 400 messages and 200 packages. They are the same ones
every time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import vitsearch
from tests.property.dashboard import ANSWERS, Answer, Dashboard, dashboard
from tests.property.mutations import (
    NASTY_TEXT,
    NUMBERS,
    OUTSIDE,
    as_json,
    damaged,
    mutated,
    reproducible,
    safetensors,
    spoiled,
    state_of,
)
from vitsearch.cli.run import validate
from vitsearch.cli.run_folder import job_yaml
from vitsearch.config import TrainSpec, load_job
from vitsearch.errors import VitsearchError
from vitsearch.fetching import fetched
from vitsearch.space import resolve_preset

LONGEST_S = 20.0


def sizes(quick: int, full: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "examples", [pytest.param(quick, id="quick"), pytest.param(full, id="full", marks=pytest.mark.slow)]
    )


class Yard:
    """A folder to work in, and everything around it that must stay as it is."""

    def __init__(self, root: Path) -> None:
        self._root, self.inside, self.outside = root, root / "yard" / "inside", root / "outside"
        for folder in (self.inside, self.outside, root / "home"):
            folder.mkdir(parents=True)
        (self.outside / "kept").write_text("as it was")

    def around(self) -> dict[str, Any]:
        return {
            name: facts
            for name, facts in state_of(self._root).items()
            if not name.startswith("yard/inside/") and name not in {"yard/inside", "yard"}
        }

    def placed(self, content: bytes) -> bytes:
        """The content with the name of the outside folder where it stands for one."""
        return content.replace(OUTSIDE.encode(), str(self.outside).encode())


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Yard:
    one = Yard(tmp_path / "root")
    monkeypatch.setenv("HOME", str(tmp_path / "root" / "home"))
    monkeypatch.chdir(one.inside)
    return one


@contextmanager
def only_our_errors(yard: Yard) -> Iterator[None]:
    """Whatever happens inside ends soon, well or with an error of ours, and touches nothing outside."""
    before, began = yard.around(), time.process_time()  # other processes may keep this one waiting
    words = "nothing went wrong"
    screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
        try:
            yield
        except VitsearchError as error:
            words = str(error)
    assert words.strip()
    assert time.process_time() - began < LONGEST_S
    assert yard.around() == before


def jobs(repository: Path) -> list[Any]:
    """The examples as written and with every field written out, and one with its whole space."""
    examples = sorted((repository / "examples").glob("*.yaml"))
    found = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in examples]
    found += [yaml.safe_load(job_yaml(load_job(file))) for file in examples]
    space = resolve_preset(load_job(examples[0]).space).model_dump(mode="json", exclude_none=True)
    found += [{**found[0], "space": space}]
    ranges = {
        "architecture.depth": {"low": 2, "high": 4}, "architecture.width": {"low": 32, "high": 64, "step": 32},
        "precision.weight_bits": {"choices": [4, 8], "per_block": True},
        "sparsity.mlp_ratio": {"low": 0.5, "high": 1.0, "step": 0.25},
        "train.lr": {"low": 0.001, "high": 0.01, "log": True},
    }  # fmt: skip
    found += [{**found[1], "space": {"preset": "vit_micro_8", "dimensions": ranges}}]
    address = {"url": "postgresql+psycopg://u:${file:/run/secrets/x}@h:5432/db", "artifacts": "s3://bucket/folder"}
    found += [{**found[0], "storage": address, "tracking": {"uri": "https://u:${A}@h", "experiment": "e"}}]
    distill = {"method": "soft", "teacher": {"timm": "vit_tiny_patch16_224"}}
    found += [{**found[0], "train": {"recipe": "deit", "distill": distill, "init": "random"}}]
    return found


@sizes(60, 4000)
def test_job_files(yard: Yard, repository: Path, examples: int) -> None:
    trees, tried = jobs(repository), []

    @given(data=st.data())
    @reproducible(examples)
    def check(data: st.DataObject) -> None:
        tree = data.draw(st.sampled_from(trees))
        text = yaml.safe_dump(data.draw(mutated(tree)), sort_keys=False, allow_unicode=True)
        file = yard.inside / "job.yaml"
        file.write_bytes(yard.placed(data.draw(spoiled(text))))
        as_json_too = data.draw(st.booleans())
        tried.append(1)
        with only_our_errors(yard):
            validate(file, data=False, json_output=as_json_too)
            again = yard.inside / "again.yaml"
            again.write_text(job_yaml(load_job(file)), encoding="utf-8")
            assert load_job(again) == load_job(file)  # what a run keeps is what was given

    check()
    assert len(tried) >= examples


@pytest.fixture(scope="module")
def bundle_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A real bundle, small."""
    from tests.unit.export.factory import CANDIDATES, digits, exported

    bundle = exported(CANDIDATES["dense"], digits(), tmp_path_factory.mktemp("fuzz"))
    return {file.name: file.read_bytes() for file in bundle.folder.iterdir()}


@st.composite
def bundles(draw: st.DrawFn, files: dict[str, bytes]) -> dict[str, bytes | str]:
    """The files of a bundle, some of them changed; a string says what stands there in place of a file."""
    found: dict[str, bytes | str] = dict(files)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(files)))
        content = files[name]
        kind = draw(st.sampled_from(["inside", "inside", "inside", "bytes", "place", "gone"]))
        if kind == "place":
            found[name] = draw(
                st.sampled_from(["folder", "pipe", "loop", OUTSIDE, "../..", "/dev/zero", "nowhere"])
            )
        elif kind == "gone":
            found.pop(name, None)
        elif kind == "inside" and name.endswith(".json"):
            found[name] = draw(as_json(json.loads(content)))
        elif kind == "inside" and name.endswith(".safetensors"):
            found[name] = draw(safetensors(content))
        else:
            found[name] = draw(damaged(content))
    if draw(st.booleans()):  # somebody who knows the format makes its checksums fit
        _sign(found)
    return found


def _sign(files: dict[str, bytes | str]) -> None:
    from vitsearch.candidate import Candidate

    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, RecursionError, ArithmeticError):
        metrics = json.loads(files["metrics.json"])
        for name, field in (("model.safetensors", "weights_sha256"), ("model.onnx", "onnx_sha256")):
            content = files[name]
            if isinstance(content, bytes):
                metrics[field] = hashlib.sha256(content).hexdigest()
        metrics["candidate_hash"] = Candidate.model_validate_json(files["candidate.json"]).hash
        files["metrics.json"] = json.dumps(metrics).encode()


def _lay_out(files: dict[str, bytes | str], folder: Path, yard: Yard) -> None:
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "folder":
            path.mkdir()
        elif content == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to({"loop": name, OUTSIDE: str(yard.outside / "kept")}.get(content, content))


@sizes(40, 3000)
def test_bundles(yard: Yard, bundle_files: dict[str, bytes], examples: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    tried = []

    @given(data=st.data())
    @reproducible(examples)
    def check(data: st.DataObject) -> None:
        files = data.draw(bundles(bundle_files))
        folder = yard.inside / "bundle"
        shutil.rmtree(folder, ignore_errors=True)
        _lay_out(files, folder, yard)
        tried.append(1)
        with only_our_errors(yard):
            bundle = vitsearch.load(folder)
            bundle.predict(image)
            with contextlib.suppress(VitsearchError):
                bundle.onnx_int8  # noqa: B018 - read on first use
            bundle.onnx(np.zeros((1, 1, 8, 8), dtype=np.float32))

    check()
    assert len(tried) >= examples


@pytest.fixture(scope="module")
def study_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a study as a cluster hands them out."""
    from tests.unit.report.factory import DATA, add_trials, job
    from vitsearch.cli.copying import pack_study, unpack_study
    from vitsearch.cli.finding import in_folder
    from vitsearch.cli.run_folder import new_study

    root = tmp_path_factory.mktemp("study")
    store = new_study(job(), root / "study")
    store.acquire()
    store.set_data(DATA)
    add_trials(store, 4)
    store.release("finished")
    pack_study(in_folder(root / "study"), "none", root / "study.tar")
    (root / "copy").mkdir()
    unpack_study(root / "study.tar", root / "copy")
    return {file.name: file.read_bytes() for file in (root / "copy").iterdir()}


JSON_COLUMNS = [
    ("studies", "job"), ("studies", "data"), ("trials", "candidate"), ("trials", "cost"), ("trials", "draw"),
    ("results", "outcome"), ("results", "figures"),
]  # fmt: skip
OTHER_COLUMNS = [
    ("studies", "name"), ("studies", "state"), ("studies", "elapsed_s"), ("trials", "number"), ("trials", "state"),
    ("trials", "kind"), ("trials", "note"), ("trials", "same_as"), ("trials", "asked_at"), ("trials",
    "candidate_hash"),
    ("results", "trial"), ("alembic_version", "version_num"),
]  # fmt: skip


@st.composite
def databases(draw: st.DrawFn, content: bytes, scratch: Path) -> bytes:
    """A study's database with other values in it, or damaged."""
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged(content))
    scratch.write_bytes(content)
    with contextlib.closing(sqlite3.connect(scratch)) as connection, contextlib.suppress(sqlite3.Error):
        connection.execute("PRAGMA foreign_keys=OFF")
        table, column = draw(st.sampled_from(JSON_COLUMNS + OTHER_COLUMNS))
        (value,) = connection.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone()  # noqa: S608
        if (table, column) in JSON_COLUMNS:
            other: Any = draw(as_json(json.loads(value))).decode("utf-8", "replace")
        else:
            other = draw(st.sampled_from([*NASTY_TEXT, *NUMBERS, b"\x00\xff"]))
        with contextlib.suppress(UnicodeEncodeError, OverflowError):
            connection.execute(f"UPDATE {table} SET {column} = ?", [other])  # noqa: S608
            connection.commit()
    return scratch.read_bytes()


def _entry(name: str, content: bytes = b"", **facts: Any) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for fact, value in facts.items():
        setattr(entry, fact, value)
    return entry, content


EVIL_NAMES = [
    "../made", "../../made", "/OUTSIDE/made", "OUTSIDE/made", "a/../../../made", "artifacts/../../made", ".",
    "..", "",
    "job.yaml/x", "./job.yaml", "x" * 300, "a\nb", "\udcff", "C:\\made", "//OUTSIDE/made", "study.db-wal",
    "link/made",
]  # fmt: skip
EVIL_TYPES = [
    tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"9"
]  # fmt: skip


@st.composite
def archives(draw: st.DrawFn, files: dict[str, bytes], scratch: Path, outside: Path) -> bytes:
    """What claims to be a study's archive."""
    entries = []
    wrong = draw(st.sampled_from(["entry", "entry", "database", "database", "job", "bytes"]))
    for name, content in files.items():
        if wrong == "database" and name == "study.db":
            content = draw(databases(content, scratch))  # noqa: PLW2901
        if wrong == "job" and name == "job.yaml":
            text = yaml.safe_dump(draw(mutated(yaml.safe_load(content))), allow_unicode=True)
            content = draw(spoiled(text)).replace(OUTSIDE.encode(), str(outside).encode())  # noqa: PLW2901
        entries.append(_entry(name, content))
    if wrong == "entry":
        for _ in range(draw(st.integers(1, 3))):
            kind = draw(st.sampled_from(EVIL_TYPES))
            names = [name.replace(OUTSIDE, str(outside)) for name in [*EVIL_NAMES, "job.yaml", "study.db", "link"]]
            content = b"evil" if kind == tarfile.REGTYPE else b""
            facts = {
                "type": kind, "linkname": draw(st.sampled_from([*names, str(outside), str(outside / "kept")])),
                "mode": draw(st.sampled_from([0o644, 0o4777, 0, 0o7777])),
                "mtime": draw(st.sampled_from([0, -1, 2**40])),
            }  # fmt: skip
            where = draw(st.integers(0, len(entries)))
            entries.insert(where, _entry(draw(st.sampled_from(names)), content, **facts))
    made = io.BytesIO()
    form = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    with (
        contextlib.suppress(ValueError, OverflowError),  # not every form can hold every lie
        tarfile.open(fileobj=made, mode="w", format=form) as package,
    ):
        for entry, content in entries:
            package.addfile(entry, io.BytesIO(content))
    return draw(damaged(made.getvalue())) if wrong == "bytes" else made.getvalue()


@pytest.fixture(scope="module")
def server() -> Iterator[Dashboard]:
    with dashboard() as one:
        yield one


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for answers that do not come, and nothing large is sent."""
    from vitsearch.cli import cluster as commands
    from vitsearch.cli import remote
    from workers import cluster

    def empty(to: Path, *_: object, **__: object) -> None:
        with zipfile.ZipFile(to, "w") as package:
            package.writestr("requirements.json", "[]")

    monkeypatch.setattr(remote, "write_package", empty)
    monkeypatch.setattr(remote, "POLL_S", 0.0)
    monkeypatch.setattr(remote, "START_TIMEOUT_S", 0.05)
    monkeypatch.setattr(commands, "POLL_S", 0.0)
    monkeypatch.setattr(commands, "STOP_PATIENCE_S", 0.05)
    monkeypatch.setattr(cluster, "YOUNG_CLUSTER_S", 0.0)
    monkeypatch.setattr(cluster, "READ_TIMEOUT_S", 2.0)


def _questions(address: str) -> dict[str, Callable[[], object]]:
    """What people ask a cluster."""
    from vitsearch.cli import cluster, targets
    from vitsearch.cli.finding import StudyName

    named = StudyName(name="flowers", address=address, database=None)
    return {
        "list": lambda: cluster.list_(address, json_output=False),
        "list --json": lambda: cluster.list_(address, json_output=True),
        "status": lambda: cluster.status("flowers", address, json_output=False),
        "status --json": lambda: cluster.status("flowers", address, json_output=True),
        "logs": lambda: cluster.logs("flowers", address, follow=False),
        "logs -f": lambda: cluster.logs("flowers", address, follow=True),
        "watch": lambda: cluster.watch("flowers", address),
        "stop": lambda: cluster.stop("flowers", address),
        "resume": lambda: cluster.resume_submitted(named, trials=None, workers=None, json_output=False),
        "targets": lambda: targets.targets(address, json_output=False),
    }


@st.composite
def answers(draw: st.DrawFn, valid: dict[str, Answer]) -> dict[str, Answer]:
    """The answers of a dashboard, one or two of them wrong."""
    found = dict(valid)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(ANSWERS)))
        body = draw(as_json(json.loads(valid[name].body))) if draw(st.integers(0, 3)) else valid[name].body
        status = draw(st.sampled_from([200] * 9 + [404, 500, 401, 403, 302, 204]))
        found[name] = Answer(body, status, missing=draw(st.sampled_from([0] * 9 + [7])))
    return found


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")  # of Ray's client
@sizes(50, 1200)
def test_answers_of_a_cluster(yard: Yard, server: Dashboard, impatient: None, examples: int) -> None:
    tried = []
    questions = _questions(server.address)
    server.reset()
    valid = dict(server.answers)

    @given(asked=st.sampled_from(sorted(questions)), told=answers(valid))
    @reproducible(examples)
    def check(asked: str, told: dict[str, Answer]) -> None:
        server.answers = told
        tried.append(1)
        with only_our_errors(yard):
            questions[asked]()

    check()
    assert len(tried) >= examples


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of an archive, in a failure
@sizes(50, 1200)
def test_copies_of_studies(
    yard: Yard, server: Dashboard, study_files: dict[str, bytes], impatient: None, examples: int
) -> None:
    from vitsearch.cli import results, show

    tried = []
    scratch = yard.inside / "scratch.db"
    seen = yard.inside / "seen"

    @given(
        whole=archives(study_files, scratch, yard.outside),
        command=st.sampled_from(["json", "table", "show", "export"]),
    )
    @reproducible(examples)
    def check(whole: bytes, command: str) -> None:
        server.reset()
        facts = {"file": "x.tar", "bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
        server.answers["tar"] = Answer(whole)
        server.answers["copy"] = Answer(json.dumps(facts).encode())
        tried.append(1)
        with only_our_errors(yard):
            if command == "export":
                results.export(out=seen, study="flowers", address=server.address)
            elif command == "show":
                show.show(study="flowers", address=server.address)
            else:
                results.pareto(study="flowers", address=server.address, json_output=command == "json")

    check()
    assert len(tried) >= examples


def _messages() -> list[tuple[type[Any], dict[str, Any]]]:
    """A valid one of each kind that crosses between driver and workers."""
    from tests.unit.export.factory import PROFILE
    from vitsearch.messages import EpochReport, Profile, TrialFailure, TrialRequest, TrialResult
    from vitsearch.testing.noop import noop_result
    from vitsearch.testing.storage import CANDIDATE

    request = TrialRequest(
        trial=3, candidate=CANDIDATE, train=TrainSpec(), seed=1, data_fingerprint="0", artifact_dir="/a"
    )
    failure = TrialFailure(trial=3, stage="train", failure="nan_loss", message="not a number")
    report = EpochReport(trial=3, epoch=1, epochs=2, train_loss=0.5, learning_rate=0.1, images_per_s=10.0)
    return [
        (type(one), one.model_dump(mode="json"))
        for one in (request, noop_result(request), failure, report, PROFILE)
    ] + [(TrialResult, failure.model_dump(mode="json")), (Profile, report.model_dump(mode="json"))]


@sizes(60, 400)
def test_messages_between_driver_and_workers(yard: Yard, examples: int) -> None:
    from vitsearch.messages import TrialFailure, TrialResult
    from workers.executor import _parse_outcome

    tried = []

    @given(data=st.data())
    @reproducible(examples)
    def check(data: st.DataObject) -> None:
        kind, tree = data.draw(st.sampled_from(_messages()))
        text = data.draw(as_json(tree))
        tried.append(1)
        with only_our_errors(yard):
            if kind in {TrialResult, TrialFailure}:
                _parse_outcome(text.decode("utf-8", "replace"))
            else:
                with contextlib.suppress(ValueError):  # whoever reads one of these expects it
                    assert kind.model_validate_json(kind.model_validate_json(text).model_dump_json())

    check()
    assert len(tried) >= examples


@st.composite
def data_archives(draw: st.DrawFn, outside: Path) -> tuple[str, bytes]:
    """Images as a zip or tar file, with a member that has no business there, or damaged."""
    suffix, made = draw(st.sampled_from([".zip", ".tar", ".tar.gz"])), io.BytesIO()
    name = draw(st.sampled_from(EVIL_NAMES)).replace("OUTSIDE", str(outside))
    names = [*draw(st.lists(st.sampled_from(["a/1.png", "a/2.png", "b/1.png"]), max_size=3)), name]
    if suffix == ".zip":
        with zipfile.ZipFile(made, "w") as package:
            for one in draw(st.permutations(names)):
                entry = zipfile.ZipInfo("x")
                entry.filename = one.encode("utf-8", "replace").decode()
                entry.external_attr = draw(st.sampled_from([0o644, 0o120777, 0o40755])) << 16  # file, link, folder
                with contextlib.suppress(UserWarning):  # a name twice
                    package.writestr(entry, str(outside).encode())
    else:
        with tarfile.open(fileobj=made, mode="w:gz" if suffix.endswith("gz") else "w") as package:
            for one in draw(st.permutations(names)):
                kind = draw(st.sampled_from(EVIL_TYPES))
                entry, content = _entry(one, b"x" * 20, type=kind, linkname=str(outside / "kept"))
                package.addfile(entry, io.BytesIO(content))
    return suffix, draw(damaged(made.getvalue())) if draw(st.integers(0, 3)) == 0 else made.getvalue()


@sizes(40, 800)
def test_data_at_addresses(yard: Yard, monkeypatch: pytest.MonkeyPatch, examples: int) -> None:
    """An archive that a job names by an address is unpacked into the cache and nowhere else."""
    monkeypatch.setenv("VITSEARCH_CACHE", str(yard.inside / "cache"))
    tried = []

    @given(found=data_archives(yard.outside))
    @reproducible(examples)
    def check(found: tuple[str, bytes]) -> None:
        suffix, content = found
        tried.append(1)
        file = yard.inside / f"images{suffix}"
        file.write_bytes(content)
        shutil.rmtree(yard.inside / "cache", ignore_errors=True)
        with only_our_errors(yard):
            folder = fetched(f"file://{file}", field="dataset.path")
            assert folder.resolve().is_relative_to((yard.inside / "cache").resolve())

    check()
    assert len(tried) >= examples


NEAR = [
    "a",
    "b/c.png",
    "..",
    ".",
    "../inside/a",
    "../../outside/kept",
    "link",
    "loop",
    "b",
    "x" * 300,
    "a\nb",
    "é",
]


@sizes(40, 200)
def test_packages_for_a_cluster(yard: Yard, monkeypatch: pytest.MonkeyPatch, examples: int) -> None:
    """Whatever a job names, what is sent unpacks into the job's own folder on the head."""
    from vitsearch.cli import packing
    from vitsearch.config import read_job

    monkeypatch.setattr(packing, "_code", lambda: iter(()))
    (yard.inside / "a").write_text("a")
    (yard.inside / "b").mkdir()
    (yard.inside / "b" / "c.png").write_text("c")
    (yard.inside / "link").symlink_to(yard.outside)
    (yard.inside / "loop").symlink_to("loop")
    tried = []

    @given(names=st.tuples(*[st.sampled_from([*NEAR, *NASTY_TEXT])] * 2))
    @reproducible(examples)
    def check(names: tuple[str, str]) -> None:
        tried.append(1)
        network = {"checkpoint": names[1], "timm": "vit_tiny_patch16_224"}
        tree = {
            "name": "j", "dataset": {"kind": "imagefolder", "path": names[0]}, "space": "vit_micro_8",
            "train": {"distill": {"method": "soft", "teacher": network}},
        }  # fmt: skip
        job, package = yard.inside / "job.yaml", yard.inside / "package.zip"
        with only_our_errors(yard):
            job.write_text(yaml.safe_dump(tree), encoding="utf-8")
            packing.write_package(package, read_job(job), folder=yard.inside, where="job.yaml")
            with zipfile.ZipFile(package) as sent:
                for name in sent.namelist():
                    assert not name.startswith("/")
                    assert ".." not in Path(name).parts

    check()
    assert len(tried) >= examples
