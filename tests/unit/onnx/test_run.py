from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.unit.compress.factory import images
from tests.unit.onnx.factory import model
from vitsearch.errors import ExportError
from vitsearch.onnx import OnnxModel, export_onnx


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model("dense"), path, in_chans=1, image_size=8)
    return path


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_set_and_change_nothing(file: Path, threads: int):
    session = OnnxModel(file, threads=threads)
    options = session._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    assert session._session.get_providers() == ["CPUExecutionProvider"]
    logits = session(images(3).numpy())
    assert logits.shape == (3, 5)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, OnnxModel(file)(images(3).numpy()), rtol=1e-5, atol=1e-5)


def test_a_broken_file_is_refused(tmp_path: Path):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"cannot load .*model\.onnx: .*INVALID_PROTOBUF"):
        OnnxModel(tmp_path / "model.onnx")


def test_images_of_another_shape_are_refused(file: Path):
    with pytest.raises(ExportError, match=r"cannot run .*model\.onnx"):
        OnnxModel(file)(np.zeros((1, 2, 8, 8), dtype=np.float32))


def test_a_gpu_computes_or_there_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch):
    """A wheel for GPUs whose libraries do not load goes on with the CPU, at loading and at a call."""
    given: dict[str, Any] = {}

    class Session:
        usable = ["CPUExecutionProvider"]

        def __init__(self, *_: object, **settings: Any) -> None:
            given.update(settings)

        def get_providers(self) -> list[str]:
            return self.usable

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(ExportError, match=r"cannot use the GPU .* install the CUDA and cuDNN libraries"):
        OnnxModel(file, device="cuda")
    Session.usable = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    OnnxModel(file, device="cuda")
    assert given == {
        "providers": [("CUDAExecutionProvider", {"use_tf32": 0}), "CPUExecutionProvider"],
        "enable_fallback": 0,
    }
