from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from vitsearch.train.checkpoint import EpochCheckpoint, Progress


def state(width: int = 8, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(3, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture
def saved(tmp_path: Path) -> EpochCheckpoint:
    checkpoint = EpochCheckpoint(tmp_path / "new" / "epoch.pt", "key")
    checkpoint.save(Progress(epoch=3, history=(0.1, 0.25, 0.5)), *state())
    return checkpoint


def assert_fresh(checkpoint: EpochCheckpoint, width: int = 8) -> None:
    """Nothing is restored, and nothing half restored."""
    model, optimizer = state(width, seed=1)
    before, steps = weights(model), optimizer.state_dict()["state"][0]["exp_avg"].clone()
    assert checkpoint.restore(model, optimizer) == Progress()
    assert torch.equal(weights(model), before)
    assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], steps)


def test_round_trip(saved: EpochCheckpoint):
    model, optimizer = state(seed=1)
    expected_model, expected_optimizer = state()
    progress = EpochCheckpoint(saved.path, "key").restore(model, optimizer)
    assert progress == Progress(epoch=3, history=(0.1, 0.25, 0.5))
    assert torch.equal(weights(model), weights(expected_model))
    found, expected = optimizer.state_dict()["state"], expected_optimizer.state_dict()["state"]
    assert all(torch.equal(found[i]["exp_avg_sq"], expected[i]["exp_avg_sq"]) for i in expected)
    assert [path.name for path in saved.path.parent.iterdir()] == ["epoch.pt"]


def test_another_key_is_ignored(saved: EpochCheckpoint):
    assert_fresh(EpochCheckpoint(saved.path, "other"))


def test_no_file(tmp_path: Path):
    assert_fresh(EpochCheckpoint(tmp_path / "none.pt", "key"))
    assert_fresh(EpochCheckpoint(tmp_path, "key"))  # a folder


def test_any_damage_starts_afresh(saved: EpochCheckpoint):
    whole = saved.path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    damaged = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "short": whole[:-1],
        "one bit": bytes(flipped),
        "garbage": b"garbage" * 100,
        "a pickle": pickle.dumps({"key": "key", "epoch": 3}),
        "zeros": bytes(len(whole)),
    }
    for content in damaged.values():
        saved.path.write_bytes(content)
        assert_fresh(saved)


def test_another_network_is_not_half_loaded(saved: EpochCheckpoint):
    assert_fresh(saved, width=9)


def test_another_optimizer_is_not_half_loaded(saved: EpochCheckpoint):
    model, _ = state(seed=1)
    optimizer = torch.optim.AdamW([{"params": [p]} for p in model.parameters()])
    before = weights(model)
    assert saved.restore(model, optimizer) == Progress()
    assert torch.equal(weights(model), before)


def test_nothing_but_weights_is_unpickled(saved: EpochCheckpoint, monkeypatch: pytest.MonkeyPatch):
    arguments: list[dict[str, object]] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: arguments.append(k) or load(*a, **k))
    saved.restore(*state(seed=1))
    assert [a["weights_only"] for a in arguments] == [True]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a Linux device")
def test_a_full_disk_is_an_os_error_and_leaves_the_last_epoch(saved: EpochCheckpoint):
    before = saved.path.read_bytes()
    saved.path.with_suffix(".partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        saved.save(Progress(epoch=4), *state(seed=2))
    assert saved.path.read_bytes() == before


def test_remove(saved: EpochCheckpoint):
    saved.remove()
    assert not saved.path.exists()
    saved.remove()
