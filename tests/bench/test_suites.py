"""The suites: every case builds, names are unique, and the smallest one of each is right on our side and the peer's."""

import pytest
import torch

from electra_fast.bench import SUITES, rounds, runner, suites
from electra_fast.bench.case import within
from electra_fast.bench.suites import adam
from electra_fast.bench.suites.lengths import PARAGRAPHS, SENTENCES
from electra_fast.errors import ConfigError

OPS = [name for name in SUITES if name not in ("encoder", "training_step", "data", "pretraining")]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("suite", SUITES)
def test_cases_are_well_formed(suite, device):
    cases = suites.cases(suite, device)
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    assert suites.about(suite)
    assert "\n" not in suites.about(suite)
    quick = suites.cases(suite, device, "quick")
    assert quick or device == "cuda"
    assert all(within(c.level, "quick") for case in quick for c in case.contenders)
    for case in cases:
        assert case.suite == suite
        assert any(contender.ours for contender in case.contenders)
        assert not case.contenders[0].ours
        contenders = [contender.name for contender in case.contenders]
        assert len(set(contenders)) == len(contenders)


@pytest.mark.parametrize("suite", [*OPS, "encoder"])
def test_the_smallest_case_agrees_with_its_peers(suite, monkeypatch):
    """Real sizes, but nothing is repeated: what is checked is that all outputs are equal."""
    monkeypatch.setattr(rounds, "measure", lambda ready, *rest: {name: rounds.Timing.of([1.0]) for name in ready})
    monkeypatch.setattr(adam, "_parameters", lambda size, device: [torch.randn(50, 30), torch.randn(7)])
    for case in suites.cases(suite, "cpu", "quick")[:1]:
        rows = runner.run_case(case, "r", None, runner.Settings(rounds.Plan(), memory=False))
        assert {row.status for row in rows} <= {"measured", "absent"}, [(r.contender, r.reason) for r in rows]
        assert any(row.status == "measured" and row.ours for row in rows)


def test_a_suite_that_is_not_there():
    with pytest.raises(ConfigError, match=r"suite must be one of encoder, .* got 'sofmax'"):
        suites.cases("sofmax", "cpu")


def test_real_lengths_are_what_their_source_says():
    assert len(SENTENCES) == len(PARAGRAPHS) == 32
    assert (sum(SENTENCES) / 32, max(SENTENCES)) == (pytest.approx(25.0, abs=0.05), 53)
    assert (sum(PARAGRAPHS) / 32, max(PARAGRAPHS)) == (pytest.approx(149.5, abs=0.05), 432)


def test_parameters_counted_are_those_of_the_models():
    from electra_fast.bench.suites.adam import COUNTS
    from electra_fast.models import ElectraConfig, ElectraModel

    for size, count in COUNTS.items():
        with torch.device("meta"):
            assert sum(p.numel() for p in ElectraModel(getattr(ElectraConfig, size)()).parameters()) == count
