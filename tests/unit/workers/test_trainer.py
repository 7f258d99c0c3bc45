"""A trainer without Ray is an ordinary class."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from tests.unit.train.factory import image_data
from vitsearch.config import DistillSpec, NetworkSpec
from vitsearch.train.batches import Batch
from workers.trainer import Trainer


@pytest.fixture
def trainer() -> Trainer:
    trainer = Trainer.__new__(Trainer)
    trainer._unpaused, trainer._halted = threading.Event(), threading.Event()
    trainer._unpaused.set()
    trainer._halted.set()
    return trainer


class Computing(threading.Thread):
    """Counts batches as a training loop would."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(daemon=True)
        self.trainer, self.batches, self.done = trainer, 0, False

    def run(self) -> None:
        self.trainer._halted.clear()
        while not self.done:
            self.batches += 1
            time.sleep(0.001)
            self.trainer._wait_if_paused()
        self.trainer._halted.set()


def test_nothing_computes_while_paused_however_quickly_pauses_follow(trainer: Trainer) -> None:
    thread = Computing(trainer)
    thread.start()
    for _ in range(100):
        assert trainer.pause(5)
        before = thread.batches
        time.sleep(0.003)
        assert thread.batches == before
        trainer.resume()
    thread.done = True
    thread.join(5)
    assert not thread.is_alive()


def test_an_idle_trainer_is_at_rest(trainer: Trainer) -> None:
    assert trainer.pause(0.1)


def test_a_trainer_that_does_not_come_to_rest_says_so(trainer: Trainer) -> None:
    trainer._halted.clear()
    assert not trainer.pause(0.05)


def test_what_two_teachers_have_said_stays_apart_and_in_order() -> None:
    data = image_data()
    meta = {name: getattr(data, name) for name in vars(data) if name not in {"images_NHWC", "labels_N"}}
    images = len(data.train)
    said = [
        part
        for favourite in (0, 2)
        for part in (np.full((1, images, 1), favourite, np.uint16), np.full((1, images, 1), -0.1, np.float16))
    ]
    trainer = Trainer(data.images_NHWC, data.labels_N, meta, torch.get_num_threads(), "cpu", *said)
    one, other = NetworkSpec(timm="any"), NetworkSpec(timm="other")
    both = DistillSpec(method="co_advise", teacher=one, second_teacher=other)
    batch = Batch(images_BCHW=torch.zeros(4, 1, 8, 8), targets=torch.zeros(4), epoch=0, step=0, start=0)
    found = [answers(batch).argmax(dim=1).tolist() for answers in trainer._answers(both)]
    assert found == [[0] * 4, [2] * 4]
    assert trainer._answers(DistillSpec()) == ()
