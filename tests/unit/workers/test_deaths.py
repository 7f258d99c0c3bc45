"""What is made of Ray's words, as version 2.60 puts them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from vitsearch.errors import WorkerError
from workers.deaths import MOST_CHARACTERS, reason_of, took_the_memory

KILLED = """The actor died unexpectedly before finishing this task.
\tclass_name: Trainer
\tactor_id: 8088d650fdb651d21a35fe5d01000000
\tpid: 18474
\tnamespace: 68df89e1-80f0-4e5e-945a-471562bd6515
\tip: 10.0.0.7
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was \
killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed \
unexpectedly due to SIGSEGV or another unexpected error."""
UNBORN = """\x1b[36mThe actor died because of an error raised in its creation task, ray::Trainer.__init__() (pid=9)
  File "trainer.py", line 1, in __init__
RuntimeError: no such data\x1b[39m"""
NO_MEMORY = """2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, \
ID: 326c) was 6.82GB used / 23.54GB limit (0.289531)
OOM kill reason: Memory usage 7318319104B exceeded threshold of 7279632384B (28.8% of 25276502016B limit)
Ray killed 2 worker(s) based on the killing policy
Considered workers: [
Selected to kill: (Actor(00aa): job ID=01000000, lease ID=02, task name=Trainer.__init__, \
required resources={CPU: 0.5}, pid=20366, actual memory used=0.08GB, worker ID=53)
Selected to kill: (Actor(00bb): job ID=01000000, lease ID=03, task name=Trainer.__init__, \
required resources={CPU: 0.5}, pid=20365, actual memory used=1.76GB, worker ID=fb)
]
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
11177\t2.23\tpostgres
20365\t1.76\tray::Trainer.run
20366\t0.08\tray::Trainer.run
Refer to the documentation on how to address the out of memory issue."""


def died(text: str) -> Exception:
    return ray.exceptions.RayActorError("8088", text)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (died("The actor died unexpectedly."), "The actor died unexpectedly."),
        (died("The actor is away.\n\tip: 10.0.0.7"), "The actor is away."),
        (died(UNBORN), "RuntimeError: no such data"),
        (ray.exceptions.RayTaskError("run", "Traceback\nOSError: no store", OSError()), "OSError: no store"),
        (ray.exceptions.OutOfMemoryError(NO_MEMORY), NO_MEMORY.splitlines()[0]),
        (WorkerError("the answer is no outcome"), "the answer is no outcome"),
        (died(""), "RayActorError"),
        (ValueError(" \n"), "ValueError"),
    ],
)  # fmt: skip
def test_a_reason_is_one_line(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_the_reason_of_a_death_is_its_cause_and_place() -> None:
    reason = reason_of(died(KILLED))
    assert reason.startswith(
        "on 10.0.0.7: The actor is dead because its worker process has died. Worker exit type: "
    )
    assert "killed by the OOM killer" in reason, "which is all that is known where the kernel kills"
    assert reason.endswith(" ...")
    assert len(reason) <= MOST_CHARACTERS


def actor(number: str) -> Any:
    return SimpleNamespace(_actor_id=SimpleNamespace(hex=lambda: number))


def test_of_those_killed_for_want_of_memory_the_largest_is_at_fault() -> None:
    error = ray.exceptions.OutOfMemoryError(NO_MEMORY)
    assert took_the_memory(error, actor("00bb"))
    assert not took_the_memory(error, actor("00aa")), "it was only the latest to start"
    assert not took_the_memory(error, actor("00cc"))


@pytest.mark.parametrize(
    "error",
    [died(KILLED), died(""), ray.exceptions.OutOfMemoryError("in other words"), WorkerError(NO_MEMORY)],
    ids=lambda error: type(error).__name__,
)
def test_whoever_cannot_be_told_to_be_at_fault_is_not(error: Exception) -> None:
    assert not took_the_memory(error, actor("00bb"))
