"""Choices that several commands offer."""

from enum import Enum


class Precision(str, Enum):
    """Of a fine-tuned model at work."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"
