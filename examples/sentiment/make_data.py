"""Write short opinions about things to eat, to read and to use: labelled ones in tsv files, others without labels.

Made of templates, so that they can be given away and look the same everywhere. An opinion has one to three sentences;
about every fourth says first what others think, which is the opposite and does not count.
"""

import random
import sys
from pathlib import Path

THINGS = {
    "soup": ("hot", "fresh", "tasty", "cold", "bland", "salty"),
    "bread": ("crisp", "fresh", "tasty", "stale", "dry", "burnt"),
    "novel": ("gripping", "clever", "moving", "dull", "shallow", "confusing"),
    "film": ("gripping", "funny", "moving", "dull", "noisy", "predictable"),
    "phone": ("quick", "reliable", "handy", "slow", "fragile", "clumsy"),
    "lamp": ("bright", "sturdy", "handy", "dim", "wobbly", "ugly"),
    "train": ("quiet", "punctual", "clean", "late", "crowded", "dirty"),
    "hotel": ("quiet", "friendly", "clean", "noisy", "shabby", "dirty"),
}
OPENINGS = ("The {thing} was {word}.", "What a {word} {thing}!", "I found the {thing} rather {word}.")
MORE = ("It was {word}, too.", "Also, it is {word}.", "And so {word}!")
GOOD_ENDS = ("I would choose it again.", "My friends will hear of it.", "Worth every penny.")
BAD_ENDS = ("Never again.", "I want my money back.", "A waste of time.")
OTHERS = ("My brother calls it {word}. He is wrong.", "They told me it was {word}, but no.")


def opinion(draw: random.Random, good: bool) -> str:
    thing, words = draw.choice(list(THINGS.items()))
    mine, theirs = (words[:3], words[3:]) if good else (words[3:], words[:3])
    first, second = draw.sample(mine, 2)
    parts = [draw.choice(OPENINGS).format(thing=thing, word=first)]
    if draw.random() < 0.25:
        parts.insert(0, draw.choice(OTHERS).format(word=draw.choice(theirs)))
    if draw.random() < 0.5:
        parts.append(draw.choice(MORE).format(word=second))
    if draw.random() < 0.5:
        parts.append(draw.choice(GOOD_ENDS if good else BAD_ENDS))
    return " ".join(parts)


def main(folder: Path) -> None:
    draw = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()

    def fresh(good: bool) -> str:
        while (text := opinion(draw, good)) in seen:
            pass
        seen.add(text)
        return text

    for name, rows in (("train", 60), ("dev", 40), ("test", 100)):
        labelled = [(fresh(row % 2 == 0), "good" if row % 2 == 0 else "bad") for row in range(rows)]
        draw.shuffle(labelled)
        lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in labelled)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = [fresh(draw.random() < 0.5) for _ in range(300)]
    (folder / "unlabelled.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
