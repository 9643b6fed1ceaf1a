"""Write German text to pretrain on, and labelled sentences that only knowledge of the language can tell apart.

The text: small stories made of templates, a sentence a line, a blank line between stories. German nouns have one of
three genders, and articles, adjectives and pronouns go along with it: "einen kleinen Apfel", "eine kleine Birne", "ein
kleines Brot". The sentences to label have the right forms or, consistently, those of another gender ("einen kleinen
Brot"). The nouns of dev and test are in no labelled training sentence: their gender can only be known from the text.
"""

import random
import sys
from pathlib import Path

PEOPLE = {  # who acts: the pronoun that stands for them later
    "Er": "Bäcker Gärtner Lehrer Fischer Nachbar Großvater Müller Schneider Maler Händler".split(),
    "Sie": "Bäckerin Gärtnerin Lehrerin Tante Nachbarin Großmutter Müllerin Ärztin Malerin Händlerin".split(),
    "Es": "Mädchen Kind".split(),
}
ARTICLE = {"Er": "der", "Sie": "die", "Es": "das"}
THINGS = {  # what is acted on, by gender
    "m": "Apfel Kuchen Stuhl Tisch Hammer Korb Teller Löffel Mantel Hut Brief Ball Eimer Schlüssel Spiegel Ring "
    "Schrank Koffer Besen Topf Krug Schirm Drachen Käse",
    "f": "Birne Torte Bank Lampe Säge Kiste Tasse Gabel Jacke Mütze Zeitung Puppe Kanne Uhr Kerze Kette Vase Tasche "
    "Bürste Pfanne Flasche Leiter Trommel Wurst",
    "n": "Brot Ei Sofa Regal Messer Netz Glas Tuch Hemd Kleid Buch Spiel Fass Schloss Bild Armband Bett Paket Seil "
    "Sieb Kissen Zelt Rad Hörnchen",
}
FORMS = {  # in the accusative, by gender: articles, and the adjective's ending behind each
    "m": ("einen", "en", "den", "en"),
    "f": ("eine", "e", "die", "e"),
    "n": ("ein", "es", "das", "e"),
}
POSSESSIVE = {"Er": "sein", "Sie": "ihr", "Es": "sein"}  # ends as "ein" does
PRONOUN = {"m": "ihn", "f": "sie", "n": "es"}
ADJECTIVES = "klein groß alt neu schön rund schwer leicht rot blau bunt fein".split()
FOUND = "kauft findet holt sieht trägt bringt sucht verschenkt".split()
THEN = "legt stellt versteckt vergisst zeigt".split()
PLACES = (
    "auf dem Markt",
    "im Garten",
    "in der Küche",
    "am Fluss",
    "hinter dem Haus",
    "unter dem Baum",
    "neben der Tür",
    "im Keller",
    "auf der Wiese",
    "vor der Schule",
)
TIMES = "heute gestern morgens abends manchmal oft jetzt bald".split()


def noun_phrase(draw: random.Random, noun: str, gender: str, owner: str) -> str:
    """A thing in the accusative, with the forms of a gender; perhaps it is the owner's."""
    indefinite, after_indefinite, definite, after_definite = FORMS[gender]
    possessive = POSSESSIVE[owner] + indefinite.removeprefix("ein")
    article, ending = draw.choice(
        ((indefinite, after_indefinite), (possessive, after_indefinite), (definite, after_definite))
    )
    return f"{article} {draw.choice(ADJECTIVES)}{ending} {noun}"


def story(draw: random.Random, things: dict[str, list[str]]) -> str:
    pronoun = draw.choice(list(PEOPLE))
    person = f"{ARTICLE[pronoun]} {draw.choice(PEOPLE[pronoun])}"
    sentences = []
    for number in range(draw.randint(2, 4)):
        gender = draw.choice(list(things))
        who = person[0].upper() + person[1:] if number == 0 else pronoun
        what = noun_phrase(draw, draw.choice(things[gender]), gender, pronoun)
        sentences.append(f"{who} {draw.choice(FOUND)} {draw.choice(TIMES)} {what} {draw.choice(PLACES)}.")
        if draw.random() < 0.5:
            sentences.append(f"{pronoun} {draw.choice(THEN)} {PRONOUN[gender]} {draw.choice(PLACES)}.")
    return "\n".join(sentences)


def labelled(draw: random.Random, things: dict[str, list[str]], rows: int) -> list[str]:
    """Lines of a tsv file, every other right."""
    lines = []
    for row in range(rows):
        gender = draw.choice(list(things))
        forms = gender if row % 2 == 0 else draw.choice([other for other in things if other != gender])
        pronoun = draw.choice(list(PEOPLE))
        who = f"{ARTICLE[pronoun].capitalize()} {draw.choice(PEOPLE[pronoun])}"
        what = noun_phrase(draw, draw.choice(things[gender]), forms, pronoun)
        sentence = f"{who} {draw.choice(FOUND)} {draw.choice(TIMES)} {what} {draw.choice(PLACES)}."
        lines.append(f"{sentence}\t{'richtig' if forms == gender else 'falsch'}")
    draw.shuffle(lines)
    return ["text\tlabel", *lines]


def main(folder: Path, stories: int) -> None:
    draw = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    things = {gender: nouns.split() for gender, nouns in THINGS.items()}
    text = "\n\n".join(story(draw, things) for _ in range(stories))
    (folder / "text.txt").write_text(text + "\n", encoding="utf-8")
    for name, first, last, rows in (("train", 0, 12, 400), ("dev", 12, 16, 100), ("test", 16, 24, 400)):
        part = {gender: nouns[first:last] for gender, nouns in things.items()}
        lines = labelled(draw, part, rows)
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
