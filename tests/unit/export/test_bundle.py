import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vitsearch
from tests.unit.export.factory import CANDIDATES, EACH_CANDIDATE, normalized, random_model
from vitsearch.errors import ExportError, InputError
from vitsearch.export import load
from vitsearch.export.contents import NEEDED_FILES
from vitsearch.trial import load_model

ARTEFACTS = ("model.safetensors", "candidate.json", "preprocess.json", "metrics.json", "model.onnx")


def edit(path: Path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def resign(folder: Path):
    """Make metrics.json vouch for the weights as they are."""
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit(folder / "metrics.json", weights_sha256=sha256)


@pytest.mark.parametrize("name", EACH_CANDIDATE)
def test_a_loaded_model_has_the_logits_of_the_saved_one(name, bundle_of, data):
    bundle = load(bundle_of(name).folder)
    images = normalized(data, data.val)
    with torch.inference_mode():
        torch.testing.assert_close(
            bundle.model(images), random_model(CANDIDATES[name], data)(images), rtol=0, atol=0
        )
        torch.testing.assert_close(
            bundle.model(images), load_model(bundle.candidate, bundle.folder)(images), rtol=0, atol=0
        )
    assert bundle.candidate == CANDIDATES[name].canonical()
    assert not bundle.model.training
    assert all(p.device.type == "cpu" for p in (*bundle.model.parameters(), *bundle.model.buffers()))


def test_the_package_itself_offers_load(folder):
    assert isinstance(vitsearch.load(str(folder)), vitsearch.Bundle)


@pytest.mark.parametrize("name", ["dense", pytest.param("ppt", marks=pytest.mark.slow)])
def test_predictions_are_the_softmax_of_the_logits(name, bundle_of, data):
    bundle = bundle_of(name)
    with torch.inference_mode():
        expected = bundle.model(normalized(data, data.val[:70])).softmax(dim=-1, dtype=torch.float64)
    found = bundle.predict(data.images_NHWC[data.val[:70]], batch_size=32)
    np.testing.assert_allclose([p.probabilities for p in found], expected.numpy(), atol=1e-5)
    for prediction in found:
        assert prediction.label == int(np.argmax(prediction.probabilities))
        assert prediction.class_name == str(prediction.label)
        assert prediction.probability == max(prediction.probabilities)
    assert len({p.label for p in found}) > 1


def test_a_png_of_a_digit_gives_the_same_prediction_as_its_pixels(bundle_of, data, tmp_path):
    bundle, pixels = bundle_of("dense"), data.images_NHWC[data.val[3]]
    Image.fromarray(pixels[..., 0]).save(tmp_path / "digit.png")
    [expected] = bundle.predict(pixels)
    assert bundle.predict(tmp_path / "digit.png") == [expected]
    assert bundle.predict(str(tmp_path / "digit.png")) == [expected]
    with Image.open(tmp_path / "digit.png") as image:
        several = bundle.predict([image, tmp_path / "digit.png", pixels[..., 0]])
    for prediction in several:
        assert prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


def test_no_images_give_no_predictions(bundle_of):
    assert bundle_of("dense").predict([]) == []


def test_outputs_that_are_not_finite_are_an_error(folder, data):
    bundle = load(folder)
    torch.nn.init.constant_(bundle.model.head.bias, float("nan"))
    with pytest.raises(ExportError, match="not finite"):
        bundle.predict(data.images_NHWC[:1])


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_the_onnx_file_takes_any_batch(bundle_of, data, batch):
    bundle = bundle_of("evit")
    images = normalized(data, data.val[:batch])
    with torch.inference_mode():
        expected = bundle.model(images).numpy()
    np.testing.assert_allclose(bundle.onnx(images.numpy()), expected, atol=1e-4 * np.abs(expected).max())


def test_a_folder_that_is_none(tmp_path):
    for place in (tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(InputError, match=r"must be the folder of a bundle.*vitsearch export"):
            load(place)


def test_an_empty_folder_names_the_first_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"model\.safetensors: the bundle lacks this file"):
        load(tmp_path)


def test_every_artefact_is_needed():
    assert NEEDED_FILES == ARTEFACTS


@pytest.mark.parametrize("name", ARTEFACTS)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name}: the bundle lacks this file; export the bundle again"):
        load(folder)


@pytest.mark.parametrize("name", ARTEFACTS)
def test_a_link_out_of_the_folder_is_refused(folder, name):
    outside = folder.parent / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(InputError, match=f"{name}: must not be a link out of the bundle"):
        load(folder)


def test_a_link_inside_the_folder_is_followed(folder):
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    load(folder)


def test_a_link_to_itself_and_a_folder_are_no_files(folder):
    path = folder / "preprocess.json"
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(InputError, match=r"preprocess\.json: the bundle lacks"):
        load(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"preprocess\.json: must be a regular file"):
        load(folder)


def test_a_pipe_is_refused_instead_of_waited_for(folder):
    (folder / "metrics.json").unlink()
    os.mkfifo(folder / "metrics.json")
    started = time.monotonic()
    with pytest.raises(InputError, match=r"metrics\.json: must be a regular file"):
        load(folder)
    assert time.monotonic() - started < 5


def test_tampered_weights_are_refused(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: must have the checksum that metrics\.json names"):
        load(folder)


def test_truncated_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: must have the checksum"):
        load(folder)
    resign(folder)
    with pytest.raises(InputError, match=r"model\.safetensors: must be a whole safetensors file"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"\x80\x04N.", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"])
def test_weights_in_no_safetensors_format_are_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    resign(folder)
    with pytest.raises(InputError, match=r"model\.safetensors: must be a whole safetensors file"):
        load(folder)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "dtype"])
def test_tensors_must_be_exactly_the_candidates(folder, change):
    path = folder / "model.safetensors"
    state = load_file(path)
    if change == "missing":
        del state["head.bias"]
    elif change == "extra":
        state["aaa"] = torch.zeros(1)
    elif change == "shape":
        state["head.bias"] = torch.zeros(11)
    else:
        state["head.bias"] = torch.zeros(10, dtype=torch.float64)
    save_file(state, path)
    resign(folder)
    name = "aaa" if change == "extra" else r"head\.bias"
    with pytest.raises(
        InputError, match=rf"exactly the tensors of candidate\.json, but differs in '{name}' and 0"
    ):
        load(folder)


def test_a_candidate_that_claims_to_be_huge_costs_nothing(folder):
    candidate = json.loads((folder / "candidate.json").read_text())
    candidate["architecture"] |= {"depth": 64, "width": 16384, "heads": 64}
    (folder / "candidate.json").write_text(json.dumps(candidate))
    huge = CANDIDATES["dense"].model_validate(candidate)
    edit(folder / "metrics.json", candidate_hash=huge.hash)
    with pytest.raises(InputError, match=r"exactly the tensors of candidate\.json"):
        load(folder)


def test_another_candidate_than_the_metrics_speak_of(folder):
    candidate = json.loads((folder / "candidate.json").read_text())
    candidate["tokens"] = {"reducer": "tome", "r": 2}
    (folder / "candidate.json").write_text(json.dumps(candidate))
    with pytest.raises(InputError, match=r"candidate\.json: must be the candidate that metrics\.json speaks of"):
        load(folder)


def test_an_unknown_key_is_named(folder):
    edit(folder / "candidate.json", architektur={})
    with pytest.raises(InputError, match=r"candidate\.json: architektur: is not a known field.*'architecture'"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("preprocess.json", {"mean": [0.1, 0.2]}, "mean must have one figure per channel, but got 2"),
        ("preprocess.json", {"std": [0.0]}, r"std\.0: .*greater than 0"),
        ("preprocess.json", {"class_names": ["a", "b"]}, "number of classes must be that of the candidate, 10"),
        ("preprocess.json", {"image_size": 16}, "image_size must be that of the candidate, 8, but got 16"),
        ("preprocess.json", {"in_chans": 2}, "in_chans: .*1 or 3"),
        ("metrics.json", {"bundle_format": 2}, "bundle_format: "),
        ("metrics.json", {"weights_sha256": "abc"}, "weights_sha256: "),
        ("metrics.json", {"accuracy_val": 1.5}, "accuracy_val: "),
    ],
)
def test_a_broken_rule_names_file_and_field(folder, name, changes, message):
    edit(folder / name, **changes)
    with pytest.raises(InputError, match=f"{name}: {message}|{name}: .*{message}"):
        load(folder)


@pytest.mark.parametrize("name", ["candidate.json", "preprocess.json", "metrics.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"null"])
def test_damaged_json_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load(folder)


def test_another_onnx_file_is_refused_when_it_is_used(folder):
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    bundle = load(folder)
    with pytest.raises(InputError, match=r"model\.onnx: must have the checksum"):
        _ = bundle.onnx
    (folder / "model.onnx").unlink()
    with pytest.raises(InputError, match=r"model\.onnx: the bundle lacks this file"):
        _ = bundle.onnx
