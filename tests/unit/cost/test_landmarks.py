from vitsearch.cost import landmarks


def test_units_follow_eer():
    first = landmarks()[0]
    assert (first.table, first.category, first.model, first.top1_pct) == (2, "CA", "PVT-Tiny", 75.1)
    assert first.eer_values() == {"params": 13.2e6, "macs": 1.9e9}
    assert first.eer_metrics == ("params", "macs")


def test_bits_are_the_mean_of_both():
    rows = [row for row in landmarks() if row.category == "Q" and row.bits is not None]
    assert rows
    assert any(row.bits == 6.0 for row in rows)  # W8/A4 in Table 6


def test_rows_are_read_once():
    assert landmarks() is landmarks()
