"""A case from beginning to end: equal outputs before any timing, absent and failing peers, Ctrl-C."""

import pytest
import torch

from electra_fast.bench import rounds, runner
from electra_fast.bench.case import Absent, Case, Contender, find, relative_error
from electra_fast.bench.roofline import Roof

SETTINGS = runner.Settings(rounds.Plan(least=2, most=2, seconds=0.0), memory=False)
ROOF = Roof(10.0, {"float32": 100.0}, {"float32": "torch"})


def contender(name: str, function, **options) -> Contender:
    return Contender(name, lambda shared: function, **options)


def make_case(*contenders: Contender, **options) -> Case:
    usual = {"suite": "toy", "name": "doubling", "dtype": "float32", "inputs": lambda shared: (torch.randn(64),)}
    return Case(contenders=contenders, **{**usual, **options})


def test_a_wrong_peer_is_refused_and_never_timed():
    calls = []

    def wrong(x):
        calls.append(1)
        return x * 2.01

    case = make_case(
        contender("torch", lambda x: x + x), contender("wrong", wrong), contender("ours", lambda x: 2 * x, ours=True)
    )
    rows = {row.contender: row for row in runner.run_case(case, "r", None, SETTINGS)}
    assert rows["wrong"].status == "wrong"
    assert "differs from torch's by 5.0e-03, more than 1e-04" in rows["wrong"].reason
    assert rows["wrong"].error == pytest.approx(5e-3, rel=1e-2)
    assert len(calls) == 1
    assert rows["wrong"].median_ms == 0
    assert rows["ours"].status == "measured"
    assert rows["ours"].ours
    assert rows["ours"].median_ms > 0
    assert rows["ours"].rounds == 2


def test_what_is_absent_or_fails_says_why():
    def absent(shared):
        raise Absent("apex is not installed")

    def fails(x):
        raise RuntimeError("no kernel for this shape\nand a long trace")

    case = make_case(
        Contender("apex", absent),
        contender("broken", fails),
        contender("torch", lambda x: x),
        contender("b", lambda x: x),
    )
    rows = {row.contender: row for row in runner.run_case(case, "r", None, SETTINGS)}
    assert (rows["apex"].status, rows["apex"].reason) == ("absent", "apex is not installed")
    assert (rows["broken"].status, rows["broken"].reason) == ("failed", "RuntimeError: no kernel for this shape")
    assert rows["b"].status == "measured"  # the first that there is takes the place of the truth


def test_tcmalloc_is_absent_where_there_is_no_library():
    case = make_case(contender("torch", lambda x: x), contender("torch, tcmalloc", lambda x: x, allocator="tcmalloc"))
    _, row = runner.run_case(case, "r", None, SETTINGS)
    assert (row.status, row.allocator) == ("absent", "tcmalloc")
    assert "--tcmalloc" in row.reason


def test_rates_and_shares_come_from_the_work_and_the_roof(monkeypatch):
    monkeypatch.setattr(rounds, "measure", lambda ready, *rest: {n: rounds.Timing.of([0.5]) for n in ready})
    case = make_case(contender("torch", lambda x: x), flops=5e9, bytes=1e9, tokens=100)
    (row,) = runner.run_case(case, "r", ROOF, SETTINGS)
    assert (row.gflops, row.gbytes, row.share, row.tokens_per_second) == (10.0, 2.0, 0.1, 200.0)
    case = make_case(contender("torch", lambda x: x), bytes=1e9)
    (row,) = runner.run_case(case, "r", ROOF, SETTINGS)
    assert (row.bound, row.share) == ("copy", 0.2)
    assert ROOF.share("", "float32", 1.0) == ROOF.share("matrix", "float64", 1.0) == 0.0


def test_random_contenders_are_compared_by_what_they_are_without_chance():
    dropout = torch.nn.functional.dropout
    case = make_case(
        contender("torch", lambda x: dropout(x, 0.5), comparable=lambda shared: lambda x: x),
        contender("ours", lambda x: dropout(x, 0.5), comparable=lambda shared: lambda x: x + 0, ours=True),
    )
    assert [row.status for row in runner.run_case(case, "r", None, SETTINGS)] == ["measured", "measured"]


def test_a_truth_of_higher_precision_comes_before_the_first_contender():
    case = make_case(
        contender("rough", lambda x: x * 1.2, tolerance=0.3),
        contender("ours", lambda x: x, ours=True),
        contender("wrong", lambda x: x * 1.2),
        truth=lambda shared: lambda x: x,
    )
    rough, ours, wrong = runner.run_case(case, "r", None, SETTINGS)
    assert [row.status for row in (rough, ours, wrong)] == ["measured", "measured", "wrong"]
    assert rough.error == pytest.approx(0.2, rel=1e-3)
    assert "differs from the truth's" in wrong.reason


def test_an_interrupt_keeps_the_rounds_so_far(monkeypatch):
    def interrupted(ready, *rest):
        raise rounds.Interrupted({"torch": rounds.Timing.of([1.0])})

    monkeypatch.setattr(rounds, "measure", interrupted)
    kept = []
    with pytest.raises(KeyboardInterrupt):
        runner.run_case(make_case(contender("torch", lambda x: x)), "r", None, SETTINGS, keep=kept.extend)
    assert [(row.contender, row.median_ms) for row in kept] == [("torch", 1000.0)]


def test_relative_error():
    x = torch.randn(1000, 8)
    assert relative_error([x], [x.clone()]) == 0.0
    assert relative_error([x * 1.01], [x]) == pytest.approx(0.01, rel=1e-3)
    one_row = x.clone()
    one_row[3] = 0
    one_value = torch.zeros(10**6)
    one_value[5] = 1e3
    assert relative_error([one_row], [x]) > 0.01
    assert relative_error([one_value + 1], [torch.ones(10**6)]) > 10
    assert relative_error([x[:1]], [x]) == relative_error([x, x], [x]) == float("inf")
    assert relative_error([x / 0], [x]) == float("inf")
    assert relative_error([torch.zeros(3)], [torch.zeros(3)]) == 0.0
    assert relative_error([torch.ones(3)], [torch.zeros(3)]) == float("inf")


def test_a_case_is_found_by_its_name():
    case = make_case(contender("torch", lambda x: x))
    assert find([case], "doubling") is case
    with pytest.raises(KeyError, match="there is no case 'tripling'"):
        find([case], "tripling")
