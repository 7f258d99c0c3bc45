from pathlib import Path

import numpy as np
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
