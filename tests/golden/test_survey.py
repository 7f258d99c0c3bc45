"""EER against every row of the survey's Tables 2 to 8 that is readable in print."""

from collections import Counter

from vitsearch.config import EerSpec
from vitsearch.cost import Landmark, eer_pct, landmarks

AS_PUBLISHED = 0.11  # the tables round to one decimal, some ratios before the mean
AS_RECOMPUTED = 0.011


def computable(row: Landmark) -> bool:
    return set(row.eer_metrics) <= row.eer_values().keys()


def recompute(row: Landmark) -> float:
    return eer_pct(row.eer_values(), EerSpec(metrics=row.eer_metrics))  # type: ignore[arg-type]


def as_published(row: Landmark) -> bool:
    return row.eer_pct is not None and abs(recompute(row) - row.eer_pct) <= AS_PUBLISHED + 1e-9


def test_there_are_141_rows_of_which_3_lack_data():
    rows = landmarks()
    assert len(rows) == 141
    lacking = [row for row in rows if not computable(row)]
    assert len(lacking) == 3
    assert all(row.recomputed_pct is None for row in lacking)


def test_124_rows_follow_and_14_are_slips():
    rows = [row for row in landmarks() if computable(row)]
    assert len(rows) == 138
    follow = [row for row in rows if as_published(row)]
    slips = [row for row in rows if not as_published(row)]
    assert (len(follow), len(slips)) == (124, 14)
    for row in slips:
        assert row.recomputed_pct is not None
        assert abs(recompute(row) - row.recomputed_pct) <= AS_RECOMPUTED, row


def test_every_row_is_transcribed():
    assert Counter(row.table for row in landmarks()) == {2: 40, 3: 23, 4: 24, 6: 28, 7: 22, 8: 4}
    assert {part for row in landmarks() for part in row.category.split("+")} == {"CA", "P", "KD", "Q"}


def test_every_recomputed_figure_is_ours():
    for row in landmarks():
        if row.recomputed_pct is not None:
            assert abs(recompute(row) - row.recomputed_pct) <= AS_RECOMPUTED, row
