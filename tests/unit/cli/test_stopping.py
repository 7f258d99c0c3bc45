"""Signals, sent to this very process."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

import pytest

from vitsearch.cli.stopping import Stopping


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks_and_the_second_raises(number: int, code: int):
    asked: list[int] = []
    stopping = Stopping()
    with stopping, stopping.listening(lambda: asked.append(1)):
        os.kill(os.getpid(), number)
        assert asked == [1]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stopping.exit_code == code
    assert asked == [1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_nobody_listens_to_raises(number: int, code: int):
    stopping = Stopping()
    with stopping, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert stopping.exit_code == code


def test_after_a_polite_stop_the_next_signal_does_not_wait():
    stopping = Stopping()
    with stopping:
        with stopping.listening(lambda: None):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_waits_while_something_shuts_down():
    done: list[str] = []

    @contextmanager
    def inner():
        try:
            yield
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            done.append("whole")

    stopping = Stopping()
    with stopping, pytest.raises(KeyboardInterrupt), stopping.whole(inner()):
        pass
    assert done == ["whole"]
    assert stopping.exit_code == 130


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Stopping(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
