"""electra-fast bench: measure, report, compare, from beginning to end on toys; mistakes in one line."""

import sys
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from electra_fast.bench import records, roofline, session
from electra_fast.bench.case import Case, Contender
from electra_fast.bench.records import Row
from electra_fast.bench.worker import WorkerError
from electra_fast.cli import app as frame

ROOF = roofline.Roof(10.0, {"float32": 100.0}, {"float32": "torch"})


def toys(device: str) -> list[Case]:
    def make(name: str, level: str, **options) -> Case:
        contenders = (
            Contender("torch", lambda shared: lambda x: x + x),
            Contender("electra-fast", lambda shared: lambda x: 2 * x, ours=True),
            Contender("wrong", lambda shared: lambda x: 3 * x),
        )
        return Case("gelu", name, "float32", contenders, lambda shared: (torch.randn(64),), level=level, **options)

    return [make("first", "quick", bytes=512.0), make("second", "full", flops=64.0, tokens=64)]


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Run the command line with toys in the suite gelu; returns the exit code and what was printed."""
    from electra_fast.bench.suites import gelu

    monkeypatch.setattr(gelu, "cases", toys)
    monkeypatch.setattr(roofline, "measure", lambda device, on_step: ROOF)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["electra-fast", "bench", *arguments])
        result = CliRunner().invoke(frame.app, ["bench", *arguments], env={"COLUMNS": "200"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return run


SHORT = ("--suite", "gelu", "--device", "cpu", "--seconds", "0", "--no-memory")


def test_a_run_from_beginning_to_end(call, tmp_path):
    code, said = call(*SHORT, "--quick", "--out", "out")
    assert code == 0
    assert "gelu: first" in said
    assert "wrong: its output differs" in said
    found = records.read(tmp_path / "out")
    (facts,) = found.runs.values()
    assert facts["roof"]["copy"] == 10.0
    assert [(row.contender, row.status) for row in found.rows] == [
        ("torch", "measured"),
        ("electra-fast", "measured"),
        ("wrong", "wrong"),
    ]
    assert found.rows[0].share > 0
    assert (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "out" / "records.csv").exists()

    assert call(*SHORT, "--full", "--out", "out", "--case", "second")[0] == 0
    assert len(records.read(tmp_path / "out").runs) == 2

    (tmp_path / "README.md").write_text("<!-- bench gelu -->\n<!-- /bench -->\n")
    assert "README.md: tables written" in call("--readme", "README.md", "--out", "out")[1]
    assert "| second |" in (tmp_path / "README.md").read_text()
    assert "README.md: up to date" in call("--readme", "README.md", "--out", "out")[1]


def test_peak_memory_of_a_run(call, tmp_path, monkeypatch):
    """Of every contender that was timed, from one process; where it fails the row says nothing and the run goes on."""
    asked = []

    class Fake:
        def __init__(self, threads):
            asked.append("start")

        def ask(self, **request):
            asked.append(request["contender"])
            if request["contender"] == "torch":
                raise WorkerError("no memory")
            return 1.5

        def close(self):
            asked.append("close")

    monkeypatch.setattr(session, "Worker", Fake)
    assert call(*SHORT[:-1], "--quick", "--out", "out")[0] == 0
    found = {row.contender: row.peak_memory_mib for row in records.read(tmp_path / "out").rows}
    assert found == {"torch": None, "electra-fast": 1.5, "wrong": None}
    assert asked == ["start", "torch", "electra-fast", "close"]


def rows(ours: float) -> list[Row]:
    timed = {"run": "r", "suite": "gelu", "case": "first", "dtype": "float32", "device": "cpu"}
    return [
        Row(contender="electra-fast", ours=True, median_ms=ours, **timed),
        Row(contender="torch", median_ms=2.0, **timed),
    ]


def test_compare_fails_beyond_the_ratio(call, tmp_path):
    records.append_rows(tmp_path / "before.jsonl", rows(1.0))
    records.append_rows(tmp_path / "now" / records.NAME, rows(1.2))
    compare = ("--report", "--out", "now", "--compare", "before.jsonl")
    code, said = call(*compare)
    assert code == 1
    assert "1.20" in said
    assert "slower than 1.10 times before: 1" in said
    code, said = call(*compare, "--ratio", "1.25")
    assert code == 0
    assert "machine has changed: 1.00" in said


def test_the_report_leaves_out_cases_that_are_no_more(call, tmp_path):
    former = [replace(row, case="former") for row in rows(1.0)]
    records.append_rows(tmp_path / records.NAME, [*rows(1.0), *former])
    assert call("--report", "--out", ".")[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert "first" in page
    assert "former" not in page
    assert "former" in (tmp_path / "records.csv").read_text()


def test_the_list_names_suites_cases_and_contenders(call):
    code, said = call("--list", "--suite", "gelu", "--device", "cpu", "--full")
    assert code == 0
    assert "first: torch, electra-fast, wrong" in said
    assert "second" in said
    assert "second" not in call("--list", "--suite", "gelu", "--device", "cpu")[1]


def test_no_case_is_begun_when_the_time_is_over(call, tmp_path):
    code, said = call(*SHORT, "--full", "--out", "out", "--minutes", "0")
    assert code == 0
    assert "gelu: first: left out: no time left" in said
    assert records.read(tmp_path / "out").rows == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--quick", "--full"), "quick and full exclude each other"),
        (("--ratio", "0.5"), "ratio must be at least 1, got 0.5"),
        (("--compare", "nowhere"), "there are no records in nowhere"),
        (("--report", "--out", "nowhere"), "there are no records in nowhere"),
        (
            (*SHORT, "--case", "third"),
            "case 'third' matches nothing in gelu on cpu: there are, e.g., ['first', 'second']",
        ),
        ((*SHORT, "--case", "second"), "'second' is only in a larger selection: use --full"),
        ((*SHORT, "--tcmalloc", "nowhere.so"), "tcmalloc must be a library's file, got nowhere.so"),
    ],
)
def test_mistakes(call, arguments, message):
    from electra_fast.errors import ElectraError

    with pytest.raises(ElectraError) as raised:
        call(*arguments)
    assert message in str(raised.value)


def test_a_suite_that_does_not_exist_is_a_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["electra-fast", "bench", "--suite", "atention"])
    with pytest.raises(SystemExit) as exit_:
        frame.main()
    said = capsys.readouterr().err
    assert exit_.value.code == 2
    assert said.startswith("error: --suite must be encoder, ")
    assert said.endswith("got 'atention': did you mean 'attention'?\n")


def test_a_gpu_that_is_not_there(call, monkeypatch):
    from electra_fast.errors import ConfigError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device cuda is not there"):
        call("--device", "cuda")
    assert call("--list", "--suite", "gelu")[0] == 0  # auto


def test_an_interrupt_keeps_what_was_measured(call, tmp_path, monkeypatch):
    done = session.runner.run_case

    def interrupted(case, *rest):
        if case.name == "second":
            raise KeyboardInterrupt
        return done(case, *rest)

    monkeypatch.setattr(session.runner, "run_case", interrupted)
    code, said = call(*SHORT, "--full", "--out", "out")
    assert code == 130
    assert "what was measured is in out" in said
    assert {row.case for row in records.read(tmp_path / "out").rows} == {"first"}


def test_a_tcmalloc_of_the_machine_is_found(monkeypatch):
    places = {"/usr/lib/*/libtcmalloc_minimal.so*": ["/usr/lib/x/libtcmalloc_minimal_debug.so.4", "/usr/lib/x/a.so.4"]}
    monkeypatch.setattr(session.glob, "glob", lambda place: places.get(place, []))
    assert session.find_tcmalloc() == "/usr/lib/x/a.so.4"
    monkeypatch.setattr(session.glob, "glob", lambda place: [])
    assert session.find_tcmalloc() == ""
