"""English sentences and their German translations, line by line: train.en, train.de, dev.en, dev.de, and letter.txt.

    make_data.py FOLDER

Of a small grammar, in which German differs from English: genders and cases, the verb second in the sentence, and its
second part at the end. No sentence of dev is in train.
"""

import random
import sys
from pathlib import Path

# English, German as subject, German as object
PEOPLE = (
    ("the woman", "die Frau", "die Frau"),
    ("the man", "der Mann", "den Mann"),
    ("the child", "das Kind", "das Kind"),
    ("my brother", "mein Bruder", "meinen Bruder"),
    ("our teacher", "unsere Lehrerin", "unsere Lehrerin"),
    ("the old baker", "der alte Bäcker", "den alten Bäcker"),
)
THINGS = (
    ("a dog", "einen Hund"),
    ("the red house", "das rote Haus"),
    ("a small boat", "ein kleines Boot"),
    ("the garden", "den Garten"),
    ("an apple", "einen Apfel"),
    ("the green lamp", "die grüne Lampe"),
    ("three books", "drei Bücher"),
)
# English, German as it is, German behind "will"
VERBS = (
    ("sees", "see", "sieht", "sehen"),
    ("buys", "buy", "kauft", "kaufen"),
    ("paints", "paint", "malt", "malen"),
    ("looks for", "look for", "sucht", "suchen"),
)
TIMES = (("today", "heute"), ("tomorrow", "morgen"), ("in summer", "im Sommer"), ("at the market", "auf dem Markt"))


def sentence(draw: random.Random) -> tuple[str, str]:
    """A sentence and its translation."""
    who, wer, _ = draw.choice(PEOPLE)
    what, wen = draw.choice([*THINGS, *((english, accusative) for english, _, accusative in PEOPLE if english != who)])
    does, do, tut, tun = draw.choice(VERBS)
    when, wann = draw.choice(TIMES)
    pattern = draw.randrange(3)
    if pattern == 0:
        english, german = f"{who} {does} {what} {when}.", f"{wer} {tut} {wann} {wen}."
    elif pattern == 1:
        english, german = f"{when} {who} will {do} {what}.", f"{wann} wird {wer} {wen} {tun}."
    else:
        english, german = f"does {who} {do} {what} {when}?", f"{tut} {wer} {wann} {wen}?"
    return english[0].upper() + english[1:], german[0].upper() + german[1:]


def main(folder: Path) -> None:
    draw = random.Random(0)
    pairs: dict[str, str] = {}
    while len(pairs) < 1560:
        english, german = sentence(draw)
        pairs.setdefault(english, german)
    every = list(pairs.items())
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", every[:1500]), ("dev", every[1500:])):
        for side, lines in zip(("en", "de"), zip(*part, strict=True), strict=True):
            (folder / f"{name}.{side}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    letter = ("Today the woman will paint our teacher.", "Does my brother look for three books at the market?")
    (folder / "letter.txt").write_text("".join(f"{line}\n" for line in letter), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
