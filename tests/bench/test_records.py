"""Records: what is written comes back, also after a crash in the middle of a line; the CSV; the latest rows."""

import csv
import json

import pytest

from electra_fast.bench import records
from electra_fast.errors import ElectraError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "results" / records.NAME


def test_round_trip(file, row, facts):
    rows = [row(), row("electra-fast", peak_memory_mib=None), row("apex", status="absent", reason="not installed")]
    records.append_run(file, "r1", facts)
    records.append_rows(file, rows[:1])
    records.append_rows(file, rows[1:])
    records.append_rows(file, [])
    found = records.read(file)
    assert found.runs == {"r1": facts}
    assert found.rows == rows
    assert records.read(file.parent) == found


def test_a_line_that_was_cut_off_is_skipped_and_closed(file, row, facts):
    records.append_run(file, "r1", facts)
    records.append_rows(file, [row("a"), row("b")])
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    assert [r.contender for r in records.read(file).rows] == ["a"]
    records.append_rows(file, [row("c")])
    assert [r.contender for r in records.read(file).rows] == ["a", "c"]


def test_a_damaged_line_is_an_error_that_names_it(file, row):
    records.append_rows(file, [row()])
    with file.open("a") as stream:
        stream.write(json.dumps({"kind": "row", "colour": "red"}) + "\n")
    with pytest.raises(ElectraError, match=r"line 2 of .*records.jsonl is not a record"):
        records.read(file)


def test_no_records_say_how_to_get_some(tmp_path):
    with pytest.raises(ElectraError, match="measure with electra-fast bench --out"):
        records.read(tmp_path)


def test_the_latest_run_of_each_case_counts(row):
    old = [row(run="r1"), row("electra-fast", run="r1"), row(run="r1", case="other")]
    new = [row(run="r2", median=1.0)]
    latest = records.Records({}, [*old, *new]).latest()
    assert latest == [old[2], new[0]] or latest == [new[0], old[2]]


def test_csv_has_a_line_a_row_with_the_facts_of_its_run(tmp_path, row, facts):
    found = records.Records({"r1": facts}, [row(), row("electra-fast")])
    records.export_csv(found, tmp_path / "records.csv")
    with (tmp_path / "records.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["contender"] for line in lines] == ["torch", "electra-fast"]
    assert lines[0]["run_device"] == facts["device"]
    assert lines[0]["torch"] == "2.13.0"
    assert lines[0]["shape"] == "rows=8 columns=4"
    assert float(lines[0]["median_ms"]) == 2.0
