import math

import pytest

from vitsearch.train.early_stop import MARGIN, out_of_reach, plausible_final_accuracy

EPOCHS = 30
CURVES = {
    "fast": [0.9 * (1 - math.exp(-t / 3)) for t in range(1, EPOCHS + 1)],
    "slow": [0.9 * (1 - math.exp(-t / 20)) for t in range(1, EPOCHS + 1)],
    "linear": [0.03 * t for t in range(1, EPOCHS + 1)],
    "square root": [0.9 * math.sqrt(t / EPOCHS) for t in range(1, EPOCHS + 1)],
    "late": [0.1] * 4 + [0.1 + 0.8 * (t / 26) for t in range(1, 27)],
    "noisy": [0.9 * (1 - math.exp(-t / 8)) + (0.01 if t % 2 else -0.01) for t in range(1, EPOCHS + 1)],
}


@pytest.mark.parametrize("curve", CURVES)
def test_a_run_that_will_win_is_never_stopped(curve: str):
    history = CURVES[curve]
    for to_beat in (max(history) - 1e-9, 0.5 * max(history), 0.0):
        for t in range(1, EPOCHS + 1):
            assert not out_of_reach(history[:t], EPOCHS, to_beat), (t, to_beat)


@pytest.mark.parametrize(
    "history", [[0.5] * EPOCHS, [0.6 - 0.01 * t for t in range(EPOCHS)], [0.5, 0.51] * (EPOCHS // 2)],
    ids=["flat", "falling", "flickering"],
)  # fmt: skip
def test_a_hopeless_run_is_stopped_after_a_third(history: list[float]):
    stops = [t for t in range(1, EPOCHS + 1) if out_of_reach(history[:t], EPOCHS, 0.95)]
    assert min(stops) in {10, 11}, "the last steps of a flickering curve may look like a rise"


@pytest.mark.parametrize("epochs", [1, 2, 3, 6, 7, 10, 30, 100])
def test_the_first_third_is_protected(epochs: int):
    for t in range(1, epochs + 1):
        stopped = out_of_reach([0.0] * t, epochs, 0.9)
        assert stopped == (t >= 2 and t >= epochs / 3)


def test_without_an_incumbent_nothing_stops():
    assert not out_of_reach([0.0] * EPOCHS, EPOCHS, None)


def test_the_forecast():
    history = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]  # k = 2: the slope is 0.1 an epoch
    assert plausible_final_accuracy(history, 8) == pytest.approx(0.6 + 2 * 0.1 + MARGIN)
    assert plausible_final_accuracy(history, 6) == pytest.approx(0.6 + MARGIN)
    assert plausible_final_accuracy(history, 100) == 1.0
    falling = [0.1, 0.7, 0.6, 0.5, 0.5]  # the best counts, and a falling slope is none
    assert plausible_final_accuracy(falling, 9) == pytest.approx(0.7 + MARGIN)
    noisy = [0.2, 0.4, 0.55, 0.54]  # one worse epoch is no plateau
    assert plausible_final_accuracy(noisy, 6) == pytest.approx(0.55 + 2 * 0.075 + MARGIN)
    assert plausible_final_accuracy([0.4], 3) == pytest.approx(1.0), "one epoch rose from nothing"


def test_nothing_beats_a_perfect_incumbent():
    assert out_of_reach([0.5, 0.9, 0.99], 9, 1.0)
