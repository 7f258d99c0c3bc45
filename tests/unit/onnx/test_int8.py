from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.unit.compress.factory import candidate, images, network
from vitsearch.onnx import OnnxModel, export_onnx
from vitsearch.onnx.int8 import quantize_dynamic_int8, quantize_static_int8

WIDE = {"width": 96, "heads": 4}


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_an_int8_file_computes_in_integers_about_what_the_network_does(kind: str, tmp_path: Path):
    model = network(candidate(WIDE))
    source, path = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    export_onnx(model, source, in_chans=1, image_size=8)
    if kind == "dynamic":
        quantize_dynamic_int8(source, path)
    else:
        quantize_static_int8(source, path, [images(16).numpy(), images(15).numpy()])
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "int8.onnx"}, "nothing else stays behind"
    proto = onnx.load(path)
    kinds = {node.op_type for node in proto.graph.node}
    assert kinds >= ({"MatMulInteger"} if kind == "dynamic" else {"QuantizeLinear", "DequantizeLinear"})
    codes = sum(np.prod(one.dims) for one in proto.graph.initializer if one.data_type == onnx.TensorProto.INT8)
    linear = sum(w.numel() for name, w in model.named_parameters() if w.dim() == 2 and name.startswith("blocks"))
    assert codes >= linear
    assert OnnxModel(path)(images(1).numpy()).shape == (1, 5)
    for batch in (32, 64):
        expected = OnnxModel(source)(images(batch).numpy())
        found = OnnxModel(path)(images(batch).numpy())
        assert np.square(found - expected).mean() < 0.02 * expected.var()
        assert (found != expected).any()
