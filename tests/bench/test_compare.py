"""The comparison with earlier records: what is slower, what only the machine did."""

import pytest

from electra_fast.bench.compare import compare
from electra_fast.errors import ConfigError, ElectraError


def test_only_ours_beyond_the_ratio_are_slower(row):
    before = [row("electra-fast", 1.0), row("torch", 2.0), row("electra-fast", 1.0, case="other")]
    now = [row("electra-fast", 1.2), row("torch", 3.0), row("electra-fast", 1.05, case="other")]
    result = compare(now, before, 1.10)
    assert [change.ratio for change in result.changes] == pytest.approx([1.5, 1.2, 1.05])
    assert [change.row.case for change in result.slower] == [now[0].case]
    assert result.drift == pytest.approx(1.5)
    assert compare(now, before, 1.25).slower == []


def test_rows_without_a_figure_are_left_out(row):
    now = [row("electra-fast"), row("apex", status="absent")]
    assert [c.row.contender for c in compare(now, [row("electra-fast"), row("apex")]).changes] == ["electra-fast"]


def test_nothing_in_common_is_an_error(row):
    with pytest.raises(ElectraError, match="no measured case in common"):
        compare([row()], [row(case="other")])
    with pytest.raises(ConfigError, match=r"ratio must be at least 1, got 0\.9"):
        compare([row()], [row()], 0.9)
