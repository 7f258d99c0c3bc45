from __future__ import annotations

from typing import Any

import pytest

from vitsearch.cli.target_checks import check_targets
from vitsearch.config import JobSpec
from vitsearch.errors import StudyError
from vitsearch.messages import MachineFacts, RuntimeFacts


def facts(**changes: Any) -> MachineFacts:
    runtimes = {name: RuntimeFacts(version="1", precisions=()) for name in ("pytorch", "onnxruntime")}
    base = {"host": "box", "processor": "x", "num_processors": 2, "memory_mb": 1.0, "python": "3"}
    return MachineFacts.model_validate({**base, "runtimes": runtimes, **changes})


def job(*targets: dict[str, Any], **settings: Any) -> JobSpec:
    base = {"name": "test", "dataset": {"kind": "digits"}, "space": "vit_micro_8", "targets": targets}
    return JobSpec.model_validate({**base, **settings})


ENERGY = {"objectives": ("accuracy", "energy")}


@pytest.mark.parametrize(
    ("target", "settings", "found", "message"),
    [
        ({"runtime": "openvino"}, {}, facts(),
         r"target 'local' \(box\) lacks openvino, which openvino needs; there: pip install 'vitsearch\[openvino"),
        ({"device": "cuda"}, {}, facts(), "has no GPU that PyTorch finds; install its driver, or set device: cpu"),
        ({}, ENERGY, facts(), r"no energy counter that can be read \(RAPL\); let its user read"),
        ({"device": "cuda"}, ENERGY, facts(gpus=("g",), energy={"cpu": "rapl"}), r"\(NVML\); there: pip install"),
    ],
    ids=["library", "gpu", "rapl", "nvml"],
)  # fmt: skip
def test_what_a_target_lacks_is_said_before_the_search(
    target: dict[str, Any], settings: dict[str, Any], found: MachineFacts, message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        check_targets(job(target, **settings), lambda _: found)


@pytest.mark.parametrize(
    ("target", "settings", "found"),
    [
        ({}, {}, facts()),
        ({"runtime": "openvino"}, {}, None),
        ({"also": ["openvino"]}, {}, facts()),
        ({}, ENERGY, facts(energy={"cpu": "rapl"})),
        ({"device": "cuda"}, {}, facts(gpus=("g",))),
    ],
    ids=["all there", "no answer yet", "told with each model", "energy", "gpu"],
)
def test_what_can_be_measured_passes(
    target: dict[str, Any], settings: dict[str, Any], found: MachineFacts | None
) -> None:
    check_targets(job(target, **settings), lambda _: found)


def test_energy_is_asked_of_the_first_target_alone() -> None:
    counting, not_counting = facts(energy={"cpu": "rapl"}), facts()
    both = job({}, {"name": "jetson"}, **ENERGY)
    check_targets(both, lambda name: counting if name == "local" else not_counting)
    with pytest.raises(StudyError, match="'local'"):
        check_targets(both, lambda name: not_counting if name == "local" else counting)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"runtime": "openvino", "device": "cuda"}, "openvino computes on cpu only.*set device: cpu"),
        ({"runtime": "tensorrt"}, "tensorrt computes on cuda only"),
        ({"also": ["onnxruntime_int8_qdq"], "device": "cuda"}, "onnxruntime_int8_qdq computes on cpu only"),
        ({"wait_s": 1, "fallback": "local"}, "fallback must be another target than 'local'"),
        ({"fallback": "jetson"}, "fallback needs wait_s"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(target: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        job(target)
