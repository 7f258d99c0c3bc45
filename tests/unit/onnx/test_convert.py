import logging
from pathlib import Path

import onnx
import pytest
import torch

from tests.unit.compress.factory import images
from tests.unit.onnx.factory import PARTS, model
from vitsearch.onnx import OnnxModel, convert, export_onnx

ALWAYS = {"dense", "everything"}


@pytest.mark.parametrize(
    "parts", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in PARTS]
)
def test_the_file_computes_what_the_network_does_at_any_batch(parts: str, tmp_path: Path):
    network, path = model(parts), tmp_path / "model.onnx"
    export_onnx(network, path, in_chans=1, image_size=8)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"], "weights are inside, and nothing is left behind"
    session = OnnxModel(path)
    for batch in (1, 2, 7):
        with torch.no_grad():
            expected = network(images(batch))
        found = torch.from_numpy(session(images(batch).numpy()))
        assert found.shape == expected.shape
        diff_B = (found - expected).abs().amax(dim=1)
        if parts == "dense":
            assert diff_B.max() < 1e-4
        else:  # where two codes or scores tie, another order of summation may decide otherwise for an image
            assert diff_B.median() < 1e-3
    graph = onnx.load(path).graph
    assert [i.name for i in graph.input] == ["images"]
    assert [o.name for o in graph.output] == ["logits"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param
    onnx.checker.check_model(str(path))


def test_a_failed_export_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file that exists is complete: the profiler trusts it."""

    def broken(network: object, example: object, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half a graph")
        raise RuntimeError("interrupted")

    monkeypatch.setattr(torch.onnx, "export", broken)
    level = logging.getLogger("torch.onnx").level
    with pytest.raises(RuntimeError, match="interrupted"):
        export_onnx(model("dense"), tmp_path / "model.onnx", in_chans=1, image_size=8)
    assert not (tmp_path / "model.onnx").exists()
    assert logging.getLogger("torch.onnx").level == level
    assert convert.OPSET >= 18
