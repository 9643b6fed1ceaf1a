"""Which cases a run takes, and in what order."""

from __future__ import annotations

from types import SimpleNamespace

from electra_fast.bench import session


def test_a_run_that_must_end_in_time_begins_with_every_suite():
    cases = [SimpleNamespace(suite=suite, name=name) for suite, name in ("a1", "a2", "a3", "b1", "c1", "c2")]
    assert [case.suite + case.name for case in session.spread(cases)] == ["a1", "b1", "c1", "a2", "c2", "a3"]
