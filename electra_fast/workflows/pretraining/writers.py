"""Where a run's figures go: ``metrics.jsonl`` always, TensorBoard where it is installed, Weights & Biases on request.

A writer takes the records of a `Journal` one by one. The two packages are imported where they are used.
"""

from __future__ import annotations

import json
import os
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from electra_fast.errors import ConfigError
from electra_fast.files import write_text

from .options import PretrainOptions

_WANDB_ID = "run-id.txt"
_PLACE = ("step", "split")


class Writer(Protocol):
    """Takes records: ``step``, ``split`` ("train" or "validation") and figures, None for those without a value."""

    def write(self, record: dict[str, Any]) -> None: ...

    def sync(self) -> None:
        """Make what was written durable, as far as it is in this process's power."""

    def close(self) -> None: ...


class JsonLinesWriter:
    """One JSON object a line, each on its way to the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self._stream = open(path, "a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()

    def sync(self) -> None:
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()


class TensorBoardWriter:
    """Scalars ``name/split``. Of steps after ``step``, which are going to be written again, TensorBoard hides the old.

    Raises: ImportError if TensorBoard is not installed.
    """

    def __init__(self, directory: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory), purge_step=step + 1 if step else None)

    def write(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name not in _PLACE and value is not None:
                self._writer.add_scalar(f"{name}/{record['split']}", value, record["step"])

    def sync(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbWriter:
    """Figures ``split/name`` over ``step``, and the run's options; a resumed run goes on under the same id.

    Steps that a killed run had logged after its checkpoint are logged again when they are trained again.

    Args:
        directory: of the run; local files go to ``wandb/`` in it, where ``wandb sync`` finds those of mode "offline".
        project, mode: as `wandb.init` takes them; without a mode the environment's WANDB_MODE counts, or "online".

    Raises:
        ConfigError: not installed, not logged in, or the service cannot be reached.
    """

    def __init__(self, directory: Path, project: str, mode: str | None, config: dict[str, Any]) -> None:
        require_wandb()
        import wandb

        identity = directory / "wandb" / _WANDB_ID
        if not identity.exists():
            identity.parent.mkdir(parents=True, exist_ok=True)
            write_text(identity, uuid.uuid4().hex[:12] + "\n")
        try:
            self._run = wandb.init(
                project=project,
                mode=mode,  # type: ignore[arg-type]
                id=identity.read_text(encoding="utf-8").strip(),
                name=directory.name,
                dir=str(directory),
                resume="allow",
                config=config,
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise ConfigError(
                f"Weights & Biases cannot be used: {reason}. Log in, keep the figures here with --wandb-mode offline "
                "(wandb sync sends them later), or leave out --wandb"
            ) from None
        self._run.define_metric("*", step_metric="step")

    def write(self, record: dict[str, Any]) -> None:
        figures = {f"{record['split']}/{k}": v for k, v in record.items() if k not in _PLACE and v is not None}
        self._run.log({"step": record["step"], **figures})

    def sync(self) -> None:
        """Nothing: a process of its own writes and sends."""

    def close(self) -> None:
        self._run.finish()


def require_wandb() -> None:
    """ConfigError unless Weights & Biases is installed."""
    if find_spec("wandb") is None:
        raise ConfigError("wandb is not installed: pip install wandb, or leave out --wandb")


def optional_writers(options: PretrainOptions, step: int) -> list[Writer]:
    """Those asked for besides ``metrics.jsonl``, of a run that (re)starts after ``step``."""
    writers: list[Writer] = []
    if options.wandb is not None:
        writers.append(WandbWriter(options.output_path, options.wandb, options.wandb_mode, options.to_dict()))
    if options.tensorboard and find_spec("tensorboard") is not None:
        writers.append(TensorBoardWriter(options.output_path / "tensorboard", step))
    return writers
