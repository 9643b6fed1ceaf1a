"""Before the first step: the task, its data, read, cleaned and tokenised, all checked; and the precision."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from electra_fast.data.hygiene import HygienePolicy, HygieneReport
from electra_fast.data.parallel_text import parallel_files
from electra_fast.errors import DataError
from electra_fast.workflows.pretraining.calibrate import why_no_bf16

from .options import FinetuneOptions
from .task import Columns, Task, task_class

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_MAP_ROWS = 1000
_WORTH = 0.95  # bf16 is taken if a step takes less than this part of fp32's time
_SECONDS = 2.0


@dataclass(frozen=True)
class Split:
    """Examples of a file, cleaned, with the count of what was done."""

    path: str
    examples: Dataset
    report: HygieneReport

    def with_cut(self, rows: int) -> Split:
        return dataclasses.replace(self, report=dataclasses.replace(self.report, overlong=rows))


@dataclass(frozen=True)
class Splits:
    """Training, held-out and, if there are any, test data."""

    train: Split
    dev: Split
    test: Split | None = None

    def named(self) -> dict[str, Split]:
        return {name: split for name in ("train", "dev", "test") if (split := getattr(self, name)) is not None}

    def with_cut(self, train: int, dev: int) -> Splits:
        """With the numbers of examples that max_length cut."""
        return dataclasses.replace(self, train=self.train.with_cut(train), dev=self.dev.with_cut(dev))

    def notes(self) -> list[str]:
        """What is worth telling about the data."""
        return [f"{name}: {note}" for name, split in self.named().items() for note in split.report.notes()]

    def to_dict(self) -> dict[str, Any]:
        """For data.json: path, rows, sha256 and report of each."""
        return {
            name: {
                "path": split.path,
                "rows": len(split.examples),
                "sha256": fingerprint(split.path),
                "hygiene": split.report.to_dict(),
            }
            for name, split in self.named().items()
        }


def policy_of(options: FinetuneOptions) -> HygienePolicy:
    """The options that are about texts and rows."""
    return HygienePolicy(**{field.name: getattr(options, field.name) for field in dataclasses.fields(HygienePolicy)})


def read_splits(options: FinetuneOptions, longest: int) -> tuple[Task, Splits]:
    """The task with what training data told it, and the data.

    Without a dev file, ``dev_fraction`` of the training rows is held out, the same rows for all seeds.

    Args:
        longest: most tokens that the checkpoint reads.

    Raises:
        DataError: a file, or a row of it, cannot be used. ConfigError: an option does not fit.
    """
    task = task_class(options.task).from_options(options, longest)
    policy = policy_of(options)
    train = read_split(task, policy, options.required("train"))
    task = task.learn(train.examples)
    if options.dev is None:
        train, dev = _hold_out(train, options.dev_fraction)
    else:
        dev = read_split(task, policy, options.dev)
    return task, Splits(train, dev, None if options.test is None else read_split(task, policy, options.test))


def read_split(task: Task, policy: HygienePolicy, path: str) -> Split:
    """The labelled examples of a file, cleaned. DataError: it cannot be used, or no row is left."""
    try:
        examples, report = task.clean(task.read(path), policy)
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from None
    if not len(examples):
        raise DataError(f"{path} has no row left of {report.rows}: {'; '.join(report.notes())}")
    return Split(path, examples, report)


def _hold_out(train: Split, fraction: float) -> tuple[Split, Split]:
    rows = len(train.examples)
    held = round(rows * fraction)
    if not 0 < held < rows:
        raise DataError(
            f"{train.path} has {rows} rows, too few to hold out {fraction:g} of them: name held-out data (--dev)"
        )
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0)).tolist()
    rest = dataclasses.replace(train, examples=train.examples.select(sorted(order[held:])))
    return rest, Split(train.path, train.examples.select(sorted(order[:held])), HygieneReport(rows=held, kept=held))


def features_of(task: Task, examples: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Training rows of all examples, tokenised in parts, in memory."""
    from datasets import Dataset, concatenate_datasets

    parts = []
    for start in range(0, len(examples), _MAP_ROWS):
        rows = task.features(examples[start : start + _MAP_ROWS], tokenizer, training=True)
        rows["example"] = [index + start for index in rows["example"]]
        parts.append(Dataset.from_dict(rows))
    return concatenate_datasets(parts)


def count_cut(rows: Dataset | Columns) -> int:
    """How many examples lost something to max_length."""
    if "cut" not in (rows if isinstance(rows, dict) else rows.column_names):
        return 0
    return len({example for example, cut in zip(rows["example"], rows["cut"], strict=True) if cut})


def fingerprint(path: str) -> str:
    """sha256 of a file, of two parallel ones, or of all files of a directory, by which a resumed run knows its data."""
    digest = hashlib.sha256()
    files = sorted(Path(path).rglob("*")) if Path(path).is_dir() else parallel_files(path)
    for file in files:
        if file.is_file():
            digest.update(file.name.encode())
            with open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def choose_precision(
    wanted: str,
    make: Callable[[], nn.Module],
    loss: Callable[[nn.Module, dict[str, Any]], torch.Tensor],
    batches: Sequence[dict[str, Any]],
    device: torch.device,
) -> tuple[str, str]:
    """fp32 or bf16, and why; where nothing is said, whichever a few steps on the data's own batches find faster.

    Args:
        make: a network to measure with. loss: of it, for a batch. batches: some, of real lengths.
    """
    if wanted != "auto":
        return wanted, f"precision {wanted}: as asked"
    missing = why_no_bf16(device)
    if missing is not None:
        return "fp32", f"precision fp32: {missing}"
    state = torch.get_rng_state()
    model = make().train()
    seconds = {name: _step_seconds(model, loss, batches, device, name == "bf16") for name in ("fp32", "bf16")}
    torch.set_rng_state(state)
    chosen = "bf16" if seconds["bf16"] < _WORTH * seconds["fp32"] else "fp32"
    times = f"a step takes {seconds['bf16'] * 1e3:.0f} ms in bf16 and {seconds['fp32'] * 1e3:.0f} ms in fp32"
    return chosen, f"precision {chosen}: {times}"


def _step_seconds(
    model: nn.Module, loss: Callable, batches: Sequence[dict[str, Any]], device: torch.device, autocast: bool
) -> float:
    """Seconds of forward and backward, the fastest of a few after a first one."""
    times: list[float] = []
    while len(times) < 2 or (sum(times) < _SECONDS and len(times) < 2 * len(batches)):
        batch = {name: value.to(device) for name, value in batches[len(times) % len(batches)].items()}
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            value = loss(model, batch)
        value.backward()
        model.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])
