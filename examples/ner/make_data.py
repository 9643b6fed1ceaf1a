"""Sentences with names of people, places and boats, tagged as CoNLL files: train.conll, dev.conll, and letter.txt.

    make_data.py FOLDER

The people and boats of dev.conll do not occur in train.conll: they have to be told from what stands around them.
"""

import random
import sys
from pathlib import Path

PEOPLE = ("Ida", "Jonas", "Marta Lind", "old Henrik", "Aylin", "Petra", "Samuel Okoro", "Nils", "Rosa Pinto", "Emil")
UNSEEN_PEOPLE = ("Greta", "Tomas Vale", "Yusuf", "Lena Brandt")
PLACES = ("Lund", "Havn", "the North Pier", "Port Elm", "Osby", "the Long Bay", "Kirkwell")
BOATS = ("Swallow", "Grey Heron", "Anna Maria", "Morning Tide", "Little Auk")
UNSEEN_BOATS = ("Silver Perch", "Juno")
SENTENCES = (
    "{person} sailed the {boat} from {place} to {place} .",
    "The {boat} lay at {place} all night , and {person} slept .",
    "{person} and {person} met in {place} .",
    "Nobody in {place} had seen the {boat} .",
    "It rained , the harbour was empty .",
    '" Take the {boat} , " said {person} .',
    "{person} , who built the {boat} , lives near {place} now .",
)
LETTER = """Yesterday Greta took the Juno out to the Long Bay.
Tomas Vale waited in Kirkwell. Nobody came.
"""


def sentence(draw: random.Random, people: tuple[str, ...], boats: tuple[str, ...]) -> list[tuple[str, str]]:
    """Tokens and their tags in IOB2."""
    names = {"{person}": people, "{place}": PLACES, "{boat}": boats}
    tagged = []
    for token in draw.choice(SENTENCES).split():
        if token in names:
            first, *others = draw.choice(names[token]).split()
            kind = token.strip("{}")
            tagged += [(first, f"B-{kind}"), *((other, f"I-{kind}") for other in others)]
        else:
            tagged.append((token, "O"))
    return tagged


def write(path: Path, sentences: list[list[tuple[str, str]]]) -> None:
    lines = ["".join(f"{token}\t{tag}\n" for token, tag in sentence) for sentence in sentences]
    path.write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    write(folder / "train.conll", [sentence(draw, PEOPLE, BOATS) for _ in range(400)])
    write(folder / "dev.conll", [sentence(draw, UNSEEN_PEOPLE, UNSEEN_BOATS) for _ in range(60)])
    (folder / "letter.txt").write_text(LETTER, encoding="utf-8")


if __name__ == "__main__":
    main()
