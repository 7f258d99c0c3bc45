import hashlib
import json
import shutil

import pytest

from tests.unit.export.factory import CANDIDATES, EACH_CANDIDATE, exported, facts, micro, summary, trained
from vitsearch.candidate import load_candidate
from vitsearch.cost import cost_of
from vitsearch.errors import ExportError, InputError
from vitsearch.export import export_bundle, load, write
from vitsearch.export.contents import BUNDLE_FILES
from vitsearch.onnx import export_onnx

DENSE = CANDIDATES["dense"]


@pytest.mark.parametrize("name", EACH_CANDIDATE)
def test_a_bundle_holds_what_it_promises(name, bundle_of, data):
    bundle, candidate = bundle_of(name), CANDIDATES[name]
    assert {path.name for path in bundle.folder.iterdir()} == set(BUNDLE_FILES)
    assert load_candidate(bundle.folder / "candidate.json") == candidate.canonical()
    preprocess = json.loads((bundle.folder / "preprocess.json").read_text())
    assert preprocess["class_names"] == [str(i) for i in range(10)]
    assert preprocess["mean"] == list(data.mean)
    metrics = bundle.metrics
    assert metrics.cost == cost_of(candidate)
    assert metrics.eer_pct == pytest.approx(cost_of(candidate).eer_pct())
    assert metrics.data_fingerprint == data.fingerprint
    assert (metrics.num_train, metrics.num_val) == (len(data.train), len(data.val))
    assert metrics.onnx_check.images == 64
    assert metrics.onnx_check.agreement >= 0.98
    for file, expected in (("model.safetensors", metrics.weights_sha256), ("model.onnx", metrics.onnx_sha256)):
        assert hashlib.sha256((bundle.folder / file).read_bytes()).hexdigest() == expected
    assert metrics.simulated.any == (name == "tome_w8a8_pruned")
    assert load(bundle.folder).metrics == metrics


def test_simulated_bits_are_named(bundle_of):
    simulated = bundle_of("tome_w8a8_pruned").metrics.simulated
    assert simulated.weight_bits == simulated.activation_bits == (8,)


def test_bits_that_were_shared_out_are_named_as_they_are(data, tmp_path):
    bits = (8, 2, 6, 4)
    candidate = micro(precision={"weight_bits": bits, "mixed": True})
    assert 2 not in candidate.canonical().precision.weight_bits
    bundle = exported(candidate, data, tmp_path)
    assert bundle.metrics.simulated.weight_bits == tuple(sorted(bits))
    assert bundle.metrics.cost == cost_of(candidate.canonical())


@pytest.mark.parametrize("name", EACH_CANDIDATE)
def test_no_path_of_this_machine_is_inside(name, bundle_of, request):
    bundle = bundle_of(name)
    for path in bundle.folder.iterdir():
        content = path.read_bytes()
        for private in (request.config.rootpath, bundle.folder.parent, shutil.__file__):
            assert str(private).encode() not in content, path.name
        assert b"site-packages" not in content, path.name


def test_eer_follows_from_the_cost_where_the_study_stored_none(data, tmp_path):
    _, sha256 = trained(DENSE, data, tmp_path / "weights")
    bundle = exported(DENSE, data, tmp_path, facts=facts(DENSE, sha256, figures={}))
    assert bundle.metrics.eer_pct == pytest.approx(cost_of(DENSE).eer_pct())


@pytest.fixture
def light_onnx(monkeypatch, bundle_of):
    """Skip the conversion, which takes seconds, where a test is about something else."""
    source = bundle_of("dense").folder / "model.onnx"
    monkeypatch.setattr(write, "export_onnx", lambda _, path, **__: shutil.copyfile(source, path))


@pytest.mark.usefixtures("light_onnx")
class TestPlace:
    def test_missing_parents_are_made(self, data, tmp_path):
        bundle = exported(DENSE, data, tmp_path, out=tmp_path / "a" / "b")
        assert bundle.folder == tmp_path / "a" / "b"
        assert bundle.onnx is not None

    def test_an_empty_folder_is_used_and_rights_are_ordinary(self, data, tmp_path):
        (tmp_path / "bundle").mkdir()
        (tmp_path / "ordinary").mkdir()
        exported(DENSE, data, tmp_path)
        assert (tmp_path / "bundle").stat().st_mode == (tmp_path / "ordinary").stat().st_mode

    def test_a_file_in_the_way(self, data, tmp_path):
        (tmp_path / "bundle").write_text("mine")
        with pytest.raises(InputError, match="bundle: must be a new folder; choose another place"):
            exported(DENSE, data, tmp_path, overwrite=True)
        assert (tmp_path / "bundle").read_text() == "mine"

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_foreign_files_are_never_lost(self, overwrite, data, tmp_path):
        exported(DENSE, data, tmp_path)
        (tmp_path / "bundle" / "thesis.txt").write_text("mine")
        with pytest.raises(InputError, match=r"must be a new or empty folder.*choose another folder"):
            exported(DENSE, data, tmp_path, overwrite=overwrite)
        assert (tmp_path / "bundle" / "thesis.txt").read_text() == "mine"

    def test_an_older_bundle_is_replaced_only_when_asked(self, data, tmp_path):
        exported(DENSE, data, tmp_path)
        (tmp_path / "bundle" / "MODEL_CARD.md").write_text("old")
        with pytest.raises(InputError, match=r"already holds a bundle; .*replace it with --overwrite"):
            exported(DENSE, data, tmp_path)
        exported(DENSE, data, tmp_path, overwrite=True)
        assert (tmp_path / "bundle" / "MODEL_CARD.md").read_text() != "old"
        assert {path.name for path in tmp_path.iterdir()} == {"bundle", "weights"}

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ExportError("no")])
    def test_an_interrupted_export_leaves_nothing(self, error, data, tmp_path, monkeypatch):
        def interrupt(*_):
            raise error

        monkeypatch.setattr(write, "check_onnx", interrupt)
        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            exported(DENSE, data, tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"weights"}

    def test_an_interrupted_replacement_leaves_the_older_bundle(self, data, tmp_path, monkeypatch):
        exported(DENSE, data, tmp_path)

        def interrupt(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(write, "model_card", interrupt)
        with pytest.raises(KeyboardInterrupt):
            exported(DENSE, data, tmp_path, overwrite=True)
        assert {path.name for path in tmp_path.iterdir()} == {"bundle", "weights"}
        load(tmp_path / "bundle")

    def test_a_failing_last_step_puts_the_older_bundle_back(self, data, tmp_path, monkeypatch):
        exported(DENSE, data, tmp_path)
        rename = type(tmp_path).rename

        def fail(self, target):
            if self.name.endswith(".partial"):
                raise OSError(28, "No space left on device")
            return rename(self, target)

        monkeypatch.setattr(type(tmp_path), "rename", fail)
        with pytest.raises(ExportError, match="bundle could not be written: No space left on device"):
            exported(DENSE, data, tmp_path, overwrite=True)
        assert {path.name for path in tmp_path.iterdir()} == {"bundle", "weights"}
        load(tmp_path / "bundle")

    def test_somebody_else_took_the_place_meanwhile(self, data, tmp_path, monkeypatch):
        def intrude(*_, **__):
            (tmp_path / "bundle").mkdir()
            (tmp_path / "bundle" / "theirs").touch()
            return "card"

        monkeypatch.setattr(write, "model_card", intrude)
        with pytest.raises(InputError, match="must be a new or empty folder"):
            exported(DENSE, data, tmp_path)
        assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["theirs"]
        assert {path.name for path in tmp_path.iterdir()} == {"bundle", "weights"}


def test_an_onnx_file_of_another_network_is_refused(data, tmp_path, monkeypatch):
    other, _ = trained(DENSE, data, tmp_path / "other")
    other.head.weight.data.neg_()
    of_other = lambda _, path, **shape: export_onnx(other, path, **shape)  # noqa: E731
    monkeypatch.setattr(write, "export_onnx", of_other)
    with pytest.raises(ExportError, match=r"model\.onnx does not compute what PyTorch does"):
        exported(DENSE, data, tmp_path)
    assert not (tmp_path / "bundle").exists()


def test_weights_that_are_not_those_of_the_study(data, tmp_path):
    with pytest.raises(InputError, match=r"model\.safetensors: must have the checksum"):
        exported(DENSE, data, tmp_path, facts=facts(DENSE, "0" * 64))


def test_weights_that_are_gone(data, tmp_path):
    with pytest.raises(
        InputError, match="the trained weights are missing; export from the folder the study ran in"
    ):
        exported(DENSE, data, tmp_path, weights_folder=tmp_path / "nowhere")


def test_weights_of_another_candidate(data, tmp_path):
    _, sha256 = trained(DENSE, data, tmp_path / "weights")
    arguments = {
        "candidate": CANDIDATES["ppt"], "weights_folder": tmp_path / "weights", "data": summary(data),
        "facts": facts(DENSE, sha256), "images_NHWC": data.images_NHWC[:4], "out": tmp_path / "bundle",
    }  # fmt: skip
    with pytest.raises(ExportError, match="holds the weights of another candidate"):
        export_bundle(**arguments)


def test_data_that_do_not_fit(data, tmp_path):
    _, sha256 = trained(DENSE, data, tmp_path / "weights")
    arguments = {
        "candidate": DENSE, "weights_folder": tmp_path / "weights", "data": summary(data, class_names=("a", "b")),
        "facts": facts(DENSE, sha256), "images_NHWC": data.images_NHWC[:4], "out": tmp_path / "bundle",
    }  # fmt: skip
    with pytest.raises(ExportError, match="number of classes must be that of the candidate, 10, but got 2"):
        export_bundle(**arguments)


def test_no_images_to_check_with(data, tmp_path):
    with pytest.raises(InputError, match="at least one real image"):
        exported(DENSE, data, tmp_path, images_NHWC=data.images_NHWC[:0])
    assert not (tmp_path / "bundle").exists()
