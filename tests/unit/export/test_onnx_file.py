import numpy as np
import pytest
import torch

from tests.unit.export.factory import CANDIDATES, EACH_CANDIDATE, normalized, random_model
from vitsearch.errors import ExportError
from vitsearch.export.onnx_file import check_onnx


class Altered:
    """An ONNX file whose logits are wrong in a chosen way."""

    def __init__(self, model, alter):
        self.model, self.alter, self.seen = model, alter, 0

    def __call__(self, images):
        with torch.inference_mode():
            logits = self.model(torch.from_numpy(images)).numpy()
        for row in logits:
            self.alter(self.seen, row)
            self.seen += 1
        return logits


def run(name, data, alter, images=64):
    model = random_model(CANDIDATES[name], data)
    return check_onnx(CANDIDATES[name], model, Altered(model, alter), normalized(data, data.val[:images]))


def swap_best(row):
    """Give another image's answer."""
    row[:] = np.roll(row, 3)


@pytest.mark.parametrize("name", EACH_CANDIDATE)
def test_rounding_errors_pass(name, data):
    check = run(name, data, lambda _, row: row.__iadd__(1e-7))
    assert check.images == 64
    assert check.agreement == 1
    assert 0 < check.max_abs_diff < 1e-5 * check.max_abs_logit


def test_a_dense_network_must_agree_on_every_image(data):
    with pytest.raises(ExportError, match=r"does not compute what PyTorch does on 64 real images.*98\.4%"):
        run("dense", data, lambda i, row: swap_best(row) if i == 5 else None)
    with pytest.raises(ExportError, match=r"100\.0% of the classes agree"):
        run("dense", data, lambda i, row: row.__iadd__(np.eye(10)[row.argmax()] * 0.01) if i == 5 else None)


@pytest.mark.parametrize("name", ["tome_w8a8_pruned", "evit", "ppt"])
def test_hard_decisions_may_fall_otherwise_on_one_image_in_64(name, data):
    check = run(name, data, lambda i, row: swap_best(row) if i == 0 else None)
    assert check.agreement == pytest.approx(63 / 64)


@pytest.mark.parametrize("name", ["tome_w8a8_pruned", "evit", "ppt"])
def test_hard_decisions_excuse_no_systematic_error(name, data):
    with pytest.raises(ExportError):
        run(name, data, lambda i, row: swap_best(row) if i % 16 == 0 else None)
    with pytest.raises(ExportError):
        run(name, data, lambda _, row: row.__imul__(1.3))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_outputs_must_be_finite(wrong, data):
    with pytest.raises(ExportError, match="not finite"):
        run("dense", data, lambda i, row: row.fill(wrong) if i == 0 else None)


def test_one_image_is_enough(data):
    assert run("dense", data, lambda *_: None, images=1).images == 1
