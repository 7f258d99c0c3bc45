"""`vitsearch --help` starts in a blink only while the pure layers load no heavy library."""

import json
import subprocess
import sys

CODE = """
import json, sys
import vitsearch
import vitsearch.config, vitsearch.candidate, vitsearch.space, vitsearch.cost, vitsearch.pareto, vitsearch.messages
print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))
"""


def test_pure_layers_import_no_heavy_library():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(json.loads(done.stdout))
    assert "vitsearch" in loaded
    assert not loaded & {
        "torch",
        "torchvision",
        "timm",
        "ray",
        "mlflow",
        "optuna",
        "onnx",
        "onnxruntime",
        "fvcore",
    }
