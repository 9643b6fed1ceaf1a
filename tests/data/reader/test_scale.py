"""What must not grow with the corpus: memory of the reader; and what real text must reach: fill."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from electra_fast.data.batches import PackedBatches
from electra_fast.data.examples import BuiltExamples, ExampleBuilder
from electra_fast.data.shards import Examples, write_shard

# Private memory of a fresh process, before the reader and after 400 batches. Pages of the mapped shards are not in it:
# they are the file system's, which takes them back when memory is wanted elsewhere.
MEASURE = """
import sys
from electra_fast.data.batches import PackedBatches
def private():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
options = dict(tokens=4096, max_sequences=1024, window=4096, pad_id=0, threads=1)
batches = PackedBatches([sys.argv[1]], **options)  # so that what only the process needs is there already
for _ in range(400):
    next(batches)
batches.close()
before = private()
batches = PackedBatches([sys.argv[2]], **options)
for _ in range(400):
    next(batches)
print(private() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read private memory from")
def test_memory_does_not_grow_with_the_number_of_examples(tmp_path: Path) -> None:
    """Four million examples: an index of 4 bytes each would be 16 MB, an array of lengths as much again."""
    for name, count in (("small", 100_000), ("large", 4_000_000)):
        lengths = np.full(count, 5, np.uint32)
        write_shard(tmp_path / name, Examples(np.zeros(5 * count, np.uint16), lengths, lengths))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 4096  # KiB


def novel_lengths(max_length: int, paragraphs: int) -> np.ndarray:
    """Lengths of examples as prepare makes them of prose: paragraphs of log-normal length, a median of 40 tokens as in
    ELTeC's English novels, in documents of 2,000 paragraphs."""
    rng = np.random.default_rng(3)
    builder = ExampleBuilder(max_length=max_length, cls_id=1, sep_id=2)
    built = BuiltExamples()
    sizes = np.clip(rng.lognormal(np.log(40), 1.0, paragraphs), 3, 2000).astype(int)
    for document, begin in enumerate(range(0, paragraphs, 2000)):
        builder.build(document, 0, [[9] * size for size in sizes[begin : begin + 2000]], built)
    return np.array(built.lengths)


@pytest.mark.parametrize("max_length", [128, 512])
@pytest.mark.parametrize("batch_size", [16, 32, 128])
def test_batches_of_prose_are_99_percent_full(tmp_path: Path, max_length: int, batch_size: int) -> None:
    """With the defaults, over a whole pass, its last and part-empty window included."""
    lengths = novel_lengths(max_length, 20_000 * max(1, batch_size * max_length // 4096))
    write_shard(tmp_path / "s", Examples(np.zeros(lengths.sum(), np.uint16), lengths, lengths))
    batches = PackedBatches([tmp_path / "s"], tokens=batch_size * max_length, pad_id=0, epochs=1)
    for _ in batches:
        pass
    assert batches.statistics()["sequences"] == len(lengths)
    assert batches.statistics()["fill"] >= 0.99
