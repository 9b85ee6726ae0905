"""Every row of the parity matrix: our value and the peer's on the same arrays, within the row's tolerance."""

import pytest

from benchmarks.parity import Parity, row_functions, table
from benchmarks.parity.detectors import CASES

ROWS = row_functions()


@pytest.mark.parametrize("make", ROWS, ids=[str(i) for i in range(len(ROWS))])
def test_our_value_is_the_peers_and_a_wide_tolerance_has_a_reason(make):
    row = make()
    assert row.relative_difference <= row.tolerance, table([row])
    assert row.tolerance <= 1e-6 or row.note, table([row])


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_fid_rows_are_well_conditioned_and_so_hold_on_any_processor(case):
    """Features agree within 8e-7 (Inception) to 4e-6 (VGG16) in norm; FID averages over 6 x D such errors."""
    assert 1 < case.fid_condition() < 5.5


def test_the_difference_is_relative_except_to_a_zero():
    assert Parity("FID", "-", 1.1, "-", 1.0, 1e-6).relative_difference == pytest.approx(0.1)
    assert Parity("FID", "-", -3.0, "-", 0.0, 1e-6).relative_difference == 3.0


def test_the_table_has_a_line_per_row_and_the_reason_for_a_wide_tolerance():
    text = table([Parity("KID", "rbf", 1.0, "peer", 1.0, 1e-3, note="fewer digits")])
    assert len(text.splitlines()) == 3 and "1e-03 (fewer digits)" in text
