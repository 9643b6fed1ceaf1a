"""Short texts about villages, with questions that they answer and some that they do not: train.json, dev.json.

    make_data.py FOLDER

Both in the form of SQuAD 2.0. Besides questions.jsonl, two questions without answers to predict.
"""

import json
import random
import sys
from pathlib import Path

NAMES = ("Arnby", "Brekke", "Colmar Hill", "Dunmoor", "Estrup", "Falk", "Grenna", "Holm", "Ister", "Jarrow")
UNSEEN_NAMES = ("Kelso", "Lomma", "Mora End")
# What is told, what is asked about it, and what the answers are.
FACTS = (
    ("{name} was founded in {}.", "When was {name} founded?", ("1204", "1391", "1570", "1688", "1723", "1850")),
    ("It lies on the river {}.", "On which river does {name} lie?", ("Ane", "Bolle", "Grey Water", "Sill", "Tarn")),
    (
        "Its {} is known far and wide.",
        "What is {name} known for?",
        ("cheese", "wooden church", "horse fair", "rye bread"),
    ),
    ("The mayor is called {}.", "Who is the mayor of {name}?", ("Inga Moe", "Karl Dahl", "Lise Fuchs", "Omar Aziz")),
    ("About {} people live there.", "How many people live in {name}?", ("90", "400", "1,200", "3,000")),
)


def paragraph(draw: random.Random, name: str, number: int) -> dict:
    """Three or four of the facts in any order (the first is always told), and two questions."""
    told = [FACTS[0], *draw.sample(FACTS[1:], draw.randint(2, 3))]
    context, questions = "", []
    for statement, question, answers in told:
        before, after = statement.replace("{name}", name).split("{}")
        answer = draw.choice(answers)
        given = {"text": answer, "answer_start": len(context) + len(before)}
        questions.append({"question": question.replace("{name}", name), "answers": [given], "is_impossible": False})
        context += f"{before}{answer}{after} "
    for _, question, _ in FACTS:
        if question not in [fact[1] for fact in told]:
            questions.append({"question": question.replace("{name}", name), "answers": [], "is_impossible": True})
    asked = draw.sample(questions, 2)
    return {"context": context.strip(), "qas": [{"id": f"{number}-{i}", **q} for i, q in enumerate(asked)]}


def write(path: Path, draw: random.Random, names: tuple[str, ...], count: int) -> None:
    paragraphs = [paragraph(draw, draw.choice(names), number) for number in range(count)]
    content = {"version": "2.0", "data": [{"title": "Villages", "paragraphs": paragraphs}]}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    write(folder / "train.json", draw, NAMES, 300)
    write(folder / "dev.json", draw, UNSEEN_NAMES, 40)
    context = "Pell was founded in 1377. The mayor is called Sara Quist, and its honey is known far and wide."
    questions = ("Who is the mayor of Pell?", "On which river does Pell lie?")
    lines = (json.dumps({"question": question, "context": context}) + "\n" for question in questions)
    (folder / "questions.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
