"""A smaller network that begins with what it can take over from a larger one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from electra_fast.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_LAYERS = "electra.encoder.layer."


def student_config(
    teacher: PretrainedConfig,
    layers: int | None,
    hidden_size: int | None,
    heads: int | None,
    intermediate_size: int | None,
) -> PretrainedConfig:
    """The teacher's configuration with other sizes; None: half its layers, and of equal width what follows from that.

    Another ``hidden_size`` keeps the size of a head and the ratio of feed-forward to hidden size, unless told
    otherwise. The embeddings keep their size: they are projected.

    Raises:
        ConfigError: a size is below 1 or above the teacher's, the heads do not divide the width, or all stays the same.
    """
    config = copy.deepcopy(teacher)
    config.num_hidden_layers = max(1, teacher.num_hidden_layers // 2) if layers is None else layers
    if hidden_size is not None:
        config.hidden_size = hidden_size
        config.num_attention_heads = max(1, hidden_size * teacher.num_attention_heads // teacher.hidden_size)
        config.intermediate_size = max(1, hidden_size * teacher.intermediate_size // teacher.hidden_size)
    config.num_attention_heads = config.num_attention_heads if heads is None else heads
    config.intermediate_size = config.intermediate_size if intermediate_size is None else intermediate_size
    sizes = {
        "layers": "num_hidden_layers",
        "hidden_size": "hidden_size",
        "heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
    }
    for option, name in sizes.items():
        if not 1 <= getattr(config, name) <= getattr(teacher, name) and option != "heads":
            raise ConfigError(
                f"{option} must be from 1 to {getattr(teacher, name)}, the larger model's, got {getattr(config, name)}"
            )
    if config.num_attention_heads < 1 or config.hidden_size % config.num_attention_heads:
        raise ConfigError(
            f"heads must divide the hidden size, {config.hidden_size}, got {config.num_attention_heads}: give both "
            "hidden_size and heads"
        )
    if all(getattr(config, name) == getattr(teacher, name) for name in sizes.values()):
        raise ConfigError("the student would be as large as its teacher: give layers, hidden_size or intermediate_size")
    return config


def teacher_layer(layer: int, layers: int, teacher_layers: int) -> int:
    """The teacher's layer that a student's takes after: the last of its share, so that both end with the last one.

    Of 12 layers, a student of 4 takes 2, 5, 8 and 11 (counted from 0).
    """
    return (layer + 1) * teacher_layers // layers - 1


def make_student(teacher: nn.Module, config: PretrainedConfig) -> tuple[nn.Module, list[str]]:
    """A network of ``config`` and the teacher's class; parts (embeddings, a layer, a head) of equal shape are copied.

    Returns:
        The student, and the names of the parts that the teacher had nothing for, drawn from torch's generator.
    """
    student = type(teacher)(config)
    theirs = teacher.state_dict()
    weights = student.state_dict()
    fresh = []
    for part in dict.fromkeys(_part(name) for name in weights):
        names = [name for name in weights if _part(name) == part]
        sources = {name: _source(name, config.num_hidden_layers, teacher.config.num_hidden_layers) for name in names}
        if all(name in theirs and theirs[name].shape == weights[own].shape for own, name in sources.items()):
            weights.update({own: theirs[name].clone() for own, name in sources.items()})
        else:
            fresh.append(part)
    load(student, weights)
    return student, fresh


def load(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Fill every parameter, exactly."""
    model.load_state_dict(weights, strict=True)


def _part(name: str) -> str:
    """``electra.embeddings``, ``electra.encoder.layer.3``, ``classifier``: what is copied as a whole or not at all."""
    if name.startswith(_LAYERS):
        return _LAYERS + name.removeprefix(_LAYERS).split(".")[0]
    pieces = name.split(".")
    return ".".join(pieces[: 2 if pieces[0] == "electra" else 1])


def _source(name: str, layers: int, teacher_layers: int) -> str:
    if not name.startswith(_LAYERS):
        return name
    number, _, rest = name.removeprefix(_LAYERS).partition(".")
    return f"{_LAYERS}{teacher_layer(int(number), layers, teacher_layers)}.{rest}"
