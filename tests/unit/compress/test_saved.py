import hashlib
from pathlib import Path

import pytest
import torch

from tests.unit.trial.factory import COMPRESSED, candidate
from vitsearch.candidate import load_candidate
from vitsearch.compress import assemble, calibrate
from vitsearch.trial import CANDIDATE_FILE, WEIGHTS_FILE, load_model, save_model

PARTS = {
    "dense": {},
    "compressed": COMPRESSED,
    "distilled": {"architecture": {"distilled": True}, "tokens": {"reducer": "evit", "keep": 0.5}},
    "a budget": {"sparsity": {"method": "magnitude", "macs_ratio": 0.6}, "precision": {"activation_bits": 8}},
    "16 bits": {"precision": {"weight_bits": 16, "activation_bits": 16}},
}


@pytest.mark.parametrize("parts", PARTS)
@torch.no_grad()
def test_round_trip(parts: str, tmp_path: Path):
    c = candidate(**PARTS[parts])
    torch.manual_seed(0)
    model = assemble(c)
    images = torch.randn(5, 1, 8, 8)
    calibrate(model, [images])
    checksum = save_model(model, c, tmp_path / "deep" / "folder")
    folder = tmp_path / "deep" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [CANDIDATE_FILE, WEIGHTS_FILE]
    assert hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest() == checksum
    assert load_candidate(folder / CANDIDATE_FILE) == c.canonical()
    again = load_model(load_candidate(folder / CANDIDATE_FILE), folder)
    assert not again.training
    assert torch.equal(again(images), model(images))


def test_weights_of_another_candidate_are_refused(tmp_path: Path):
    save_model(assemble(candidate()), candidate(), tmp_path)
    with pytest.raises(RuntimeError, match=r"size mismatch|Missing key"):
        load_model(candidate(**COMPRESSED), tmp_path)


def test_saving_twice_replaces(tmp_path: Path):
    c = candidate()
    first = save_model(assemble(c), c, tmp_path)
    second = save_model(assemble(c), c, tmp_path)
    assert first != second
    assert hashlib.sha256((tmp_path / WEIGHTS_FILE).read_bytes()).hexdigest() == second


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a Linux device")
def test_a_full_disk_leaves_the_last_weights(tmp_path: Path):
    c = candidate()
    first = save_model(assemble(c), c, tmp_path)
    (tmp_path / (WEIGHTS_FILE + ".partial")).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        save_model(assemble(c), c, tmp_path)
    assert hashlib.sha256((tmp_path / WEIGHTS_FILE).read_bytes()).hexdigest() == first
