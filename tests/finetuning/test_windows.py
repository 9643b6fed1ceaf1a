"""Windows over long texts: all tokens are covered, each belongs to one window, the one with the wider context."""

import itertools

import pytest

from electra_fast.workflows.finetuning.tasks.windows import windows


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 17, 23, 100])
@pytest.mark.parametrize(("size", "overlap"), [(10, 0), (10, 4), (10, 5), (10, 9), (1, 0)])
def test_every_token_belongs_to_exactly_one_window(length, size, overlap):
    found = windows(length, size, overlap)
    assert [token for window in found for token in range(window.own_start, window.own_end)] == list(range(length))
    for window in found:
        assert window.start <= window.own_start <= window.own_end <= window.end <= min(window.start + size, length)
    for one, other in itertools.pairwise(found):
        assert one.end - one.start == size
        assert one.end - other.start == overlap


@pytest.mark.parametrize("overlap", [1, 4, 7])
def test_a_token_belongs_where_it_is_furthest_from_an_edge(overlap):
    size = 10
    length = 10 + 5 * (size - overlap)  # the last window is as long as the others
    found = windows(length, size, overlap)
    for window in found:
        for token in range(window.own_start, window.own_end):
            # The ends of the text are no edges: nothing is missing behind them.
            contexts = {
                other: min(
                    token - other.start if other.start else size, other.end - 1 - token if other.end < length else size
                )
                for other in found
                if other.start <= token < other.end
            }
            assert contexts[window] == max(contexts.values())


def test_an_overlap_as_long_as_the_window_would_never_end():
    with pytest.raises(ValueError, match="overlap must be from 0 to size - 1 = 9, got 10"):
        windows(30, 10, 10)
