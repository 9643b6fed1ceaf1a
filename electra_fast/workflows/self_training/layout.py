"""Names in the directory of self-training."""

from pathlib import Path

LABELLED = "labelled.jsonl"
PSEUDO = "pseudo.jsonl"
RUN = "run"
BEST = "best"


def round_folder(output: Path, number: int) -> Path:
    return output / f"round-{number}"
