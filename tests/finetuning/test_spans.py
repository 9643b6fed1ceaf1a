"""The best spans of a window against all spans, one by one."""

import numpy as np
import pytest

from electra_fast.workflows.finetuning.tasks.spans import best_spans, softmax


@pytest.mark.parametrize(("own", "longest"), [((0, 12), 30), ((3, 9), 4), ((11, 12), 1), ((0, 0), 5)])
def test_all_spans_are_compared(own, longest):
    draw = np.random.default_rng(0)
    first, count = 4, 12
    logits = draw.normal(size=(2, first + count + 1)).astype(np.float32)
    starts = [3 * i for i in range(count)]
    ends = [3 * i + 2 for i in range(count)]
    scores = {
        (starts[i], ends[j]): float(logits[0, first + i]) + float(logits[1, first + j])
        for i in range(*own)
        for j in range(i, min(i + longest, count))
    }
    expected = sorted(scores, key=scores.get, reverse=True)[:7]
    found = best_spans(logits, starts, ends, first, own, longest, 7)
    assert [(span.start, span.end) for span in found] == expected
    assert [span.score for span in found] == pytest.approx([scores[span] for span in expected])


def test_probabilities_do_not_overflow():
    assert softmax([]) == []
    assert softmax([1000.0, 1000.0, -1000.0]) == [0.5, 0.5, 0.0]
