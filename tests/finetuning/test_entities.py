"""Tags to entities as CoNLL's evaluation reads them, and the figures counted from entities."""

import pytest

from electra_fast.workflows.finetuning.tasks.entities import (
    Entity,
    entities,
    entity_scores,
    iob2,
    is_entity_tag,
    scores_by_kind,
    surface_scores,
)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-x I-x O B-y", "x02 y34"),
        ("I-x I-x O I-y", "x02 y34"),  # IOB1: B only where it follows an entity of its type
        ("I-x B-x I-x", "x01 x13"),
        ("O I-x I-y I-y O", "x12 y24"),  # another type begins another entity
        ("B-x I-y", "x01 y12"),
        ("B-x I-x E-x S-y S-y", "x03 y34 y45"),  # BIOES
        ("B-x L-x U-y", "x02 y23"),  # BILOU
        ("E-x E-x I-x", "x01 x12 x23"),  # behind an end, anything begins
        ("B-x S-x I-x", "x01 x12 x23"),
        ("E-x", "x01"),
        ("B-x B-x", "x01 x12"),
        ("O O", ""),
        ("", ""),
        ("B-creative-work I-creative-work", "creative-work02"),
    ],
)
def test_tags_are_read_as_conll_counts_them(tags, expected):
    tags = tags.split()
    found = entities(tags)
    assert " ".join(f"{kind}{start}{end}" for kind, start, end in found) == expected
    assert entities(iob2(found, len(tags))) == found


def test_what_is_a_tag_of_an_entity():
    assert [is_entity_tag(tag) for tag in ("O", "B-x", "I-x-y", "U-1")] == [True] * 4
    assert [is_entity_tag(tag) for tag in ("B", "B-", "x-B", "NOUN", "", "Q-x")] == [False] * 6


# Two sentences: of five gold entities and four guessed ones two are right.
GOLD = [[Entity("per", 0, 2), Entity("loc", 3, 4), Entity("loc", 5, 6)], [Entity("per", 0, 2), Entity("org", 2, 3)]]
GUESS = [[Entity("per", 0, 2), Entity("org", 3, 4), Entity("loc", 5, 7)], [Entity("per", 0, 2)]]
TOKENS = [["Ann", "Lee", "left", "Rome", "for", "Rome", "today"], ["Ann", "Lee", "Acme"]]


def test_an_entity_is_right_if_its_ends_and_its_type_are():
    assert entity_scores(GOLD, GUESS) == {"precision": 2 / 4, "recall": 2 / 5, "f1": pytest.approx(4 / 9)}


def test_every_type_has_its_own_figures():
    assert scores_by_kind(GOLD, GUESS) == {
        "loc": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2},
        "org": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
        "per": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2},
    }


def test_equal_words_count_once_on_the_surface():
    # Gold: Ann Lee/per, Rome/loc, Acme/org. Guessed: Ann Lee/per, Rome/org, Rome today/loc.
    assert surface_scores(TOKENS, GOLD, GUESS) == {"precision": 1 / 3, "recall": 1 / 3, "f1": pytest.approx(1 / 3)}


def test_a_form_is_right_only_where_it_was_found_in_its_place():
    gold, guess = [[Entity("loc", 3, 4)]], [[Entity("loc", 5, 6)]]
    assert surface_scores(TOKENS[:1], gold, guess)["f1"] == 0.0


def test_figures_of_nothing_are_zero():
    assert entity_scores([[]], [[]]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert entity_scores(GOLD, [[], []])["f1"] == 0.0
