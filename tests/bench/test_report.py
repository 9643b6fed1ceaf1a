"""The report and README's tables: what a stranger has to find in them, and that the tables are those of the records."""

import re
import sys

import pytest

from electra_fast.bench import readme, records, report
from electra_fast.bench.records import Records
from electra_fast.bench.summary import geometric_mean, milliseconds, summaries, summarise
from electra_fast.errors import ElectraError


@pytest.fixture
def found(row, facts) -> Records:
    rows = []
    for columns, ours in ((4, 1.0), (8, 1.5), (16, 8.0)):
        options = {"case": f"8x{columns} float32", "shape": {"rows": 8, "columns": columns}}
        rows += [
            row("torch", 6.0, **options),
            row("torch.compile", 3.0, **options),
            row("electra-fast", ours, **options),
        ]
    rows.append(row("apex", status="absent", reason="apex is not <installed>", case="8x4 float32"))
    return Records({"r1": facts}, rows)


def test_a_summary_is_against_the_best_peer_and_the_usual_way(found):
    best, _, slower = summaries(found.rows)
    assert (best.speedup, best.speedup_over_first, best.peer.contender) == (3.0, 6.0, "torch.compile")
    assert slower.speedup < 1
    assert best.memory_ratio == pytest.approx(1 / 3)
    assert summarise([r for r in found.rows if not r.ours]) is None


def test_numbers():
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert geometric_mean([]) == 1.0
    assert [milliseconds(x) for x in (1234.5, 12.345, 0.012345, 0.0)] == ["1234", "12.3", "0.0123", "0"]


def test_the_page_says_what_is_faster_by_how_much_and_where_not(found, tmp_path):
    page = report.write(found, tmp_path).read_text(encoding="utf-8")
    assert "in <b>2 of 3</b> cases" in page
    assert "Slower in <b class='slow'>1</b>: gelu 8x16 float32 (0.38×)" in page
    assert "3.00×" in page
    assert "apex is not &lt;installed&gt;" in page
    assert "Test CPU &lt;2&gt;" in page
    assert "commit abc1234" in page
    assert "copy 20.0 GB/s; float32 100 GFLOP/s (torch 1024³)" in page
    images = re.findall(r"src='([^']{22})", page)
    assert len(images) == 3  # speed-up, roofline, scaling with columns
    assert set(images) == {"data:image/svg+xml;bas"}
    assert not re.search(r"(src|href)='(?!data:|#)", page)
    pngs = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert pngs == ["roofline.png", "scaling-gelu-columns-float32-cpu-8.png", "speedup.png"]


def test_a_page_without_matplotlib_or_figures_says_so(found, row, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    assert "No plots: matplotlib is not installed" in report.write(found, tmp_path).read_text(encoding="utf-8")
    only = Records({}, [row("apex", status="absent", reason="not there")])
    assert "Nothing was measured on both sides yet" in report.write(only, tmp_path).read_text(encoding="utf-8")


def test_tables_are_written_between_the_markers(found, tmp_path):
    file = tmp_path / "README.md"
    file.write_text("Before\n<!-- bench gelu 8x4 -->\ntyped by hand\n<!-- /bench -->\nAfter\n", encoding="utf-8")
    assert readme.update(file, found)
    text = file.read_text(encoding="utf-8")
    assert "typed by hand" not in text
    assert "| 8x4 float32 | 1.00 | 50% | 3.00 (torch.compile) | **3.00×** | 6.00× (torch) | 0.33× |" in text
    assert "8x16" not in text
    assert "Test CPU <2>, 2 threads, torch 2.13.0, 2026-01-02, commit abc1234" in text
    assert text.startswith("Before\n")
    assert text.endswith("<!-- /bench -->\nAfter\n")
    assert not readme.update(file, found)


def test_tables_that_cannot_be_written_are_errors(found, tmp_path):
    file = tmp_path / "README.md"
    with pytest.raises(ElectraError, match="is not there"):
        readme.update(file, found)
    file.write_text("nothing")
    with pytest.raises(ElectraError, match="has no markers"):
        readme.update(file, found)
    file.write_text("<!-- bench adam -->\n<!-- /bench -->")
    with pytest.raises(ElectraError, match="no measured case of 'adam'"):
        readme.update(file, found)


def test_the_readme_has_the_tables_of_the_records(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    assert text.count("<!-- bench ") == text.count("<!-- /bench -->") > 0
    assert readme.render(text, records.read(root / "benchmarks" / "results")) == text


def test_the_torch_of_a_report_is_not_needed(monkeypatch, found, tmp_path):
    """A page is made where the records are, which need not be where they were taken."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert report.write(found, tmp_path).exists()
