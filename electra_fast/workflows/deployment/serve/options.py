"""Every option of a server in one table: on the command line, and in Python, under the same names."""

# ruff: noqa: RUF009, since option() is only a dataclass field with its help

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from electra_fast.errors import ConfigError
from electra_fast.workflows.option_table import check_choices, option


@dataclass(frozen=True)
class ServeOptions:
    """Options of a server.

    Raises:
        ConfigError: an option is ill-typed, out of range or at odds with another.
    """

    model: str | os.PathLike = option("Model", "Fine-tuned directory: the best/ of a run of finetune.")
    precision: str = option(
        "Model",
        "auto: whichever a short measurement finds faster of fp32 and bf16. int8 costs some accuracy.",
        "auto",
        choices=("auto", "fp32", "bf16", "int8"),
    )
    device: str = option("Model", "cpu, cuda, cuda:1, … or auto: a GPU if there is one.", "auto")
    threads: int | None = option("Model", "CPU threads of the model. Default: torch's.")
    trust: bool = option(
        "Model",
        "Take weights from a pickle (pytorch_model.bin) where there is no safetensors: may run its code.",
        False,
    )

    host: str = option("Network", "Address to listen on. The default is reached from this machine only.", "127.0.0.1")
    port: int = option("Network", "0: a free one, which is printed.", 8000)
    api_key_file: str | os.PathLike | None = option(
        "Network", "File with a key a line, of which a request needs one; lines that begin with # do not count."
    )

    max_batch_tokens: int = option(
        "Batching", "Tokens computed at a time: more raise throughput, and the time that each batch takes.", 2048
    )
    max_wait_ms: float = option("Batching", "Longest wait of a request for others to be computed with it.", 2.0)

    queue: int = option("Limits", "Sequences that may wait; a request beyond that is answered with 429.", 1024)
    timeout: float = option("Limits", "Seconds from a request to its answer; then it is answered with 504.", 30.0)
    max_inputs: int = option("Limits", "Most inputs of a request; beyond that: 413.", 64)
    max_tokens: int = option("Limits", "Most tokens of a request, as the model reads them; beyond that: 413.", 32768)
    max_body: int = option("Limits", "Most bytes of a request's body; beyond that: 413.", 1 << 20)

    def __post_init__(self) -> None:
        from electra_fast.models.fields import check_at_least, check_types

        check_types(self)
        check_choices(self)
        check_at_least(self, 0, "port", "max_wait_ms")
        check_at_least(self, 1, "threads", "max_batch_tokens", "queue", "max_inputs", "max_tokens", "max_body")
        if self.port > 65535:
            raise ConfigError(f"port must be from 0 to 65535, got {self.port}")
        if not math.isfinite(self.max_wait_ms):
            raise ConfigError(f"max_wait_ms must be a finite number of milliseconds, got {self.max_wait_ms}")
        if not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise ConfigError(f"timeout must be greater than 0 seconds, got {self.timeout}")
        if self.max_inputs > self.queue:
            raise ConfigError(f"max_inputs must be at most queue ({self.queue}), got {self.max_inputs}")

    def api_keys(self) -> tuple[str, ...]:
        """The keys in `api_key_file`; none without one.

        Raises:
            ConfigError: the file cannot be read, holds no key, or one that no header can carry.
        """
        if self.api_key_file is None:
            return ()
        path = Path(self.api_key_file)
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except OSError as error:
            raise ConfigError(f"api_key_file {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"api_key_file {path} is no text in UTF-8") from None
        numbered = [(n, line) for n, line in enumerate(lines, start=1) if line and not line.startswith("#")]
        if not numbered:
            raise ConfigError(f"api_key_file {path} holds no key: write one a line")
        for number, key in numbered:
            if not key.isascii() or not key.isprintable() or " " in key:
                raise ConfigError(f"api_key_file {path}, line {number}: a key is visible ASCII without spaces")
        return tuple(key for _, key in numbered)
