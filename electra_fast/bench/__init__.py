"""Benchmarks against the best of what else is there, runnable from the installed package (docs/benchmarking.md).

A `case.Case` is one thing to compute; its contenders are checked for equal output, then timed in interleaved rounds
(`rounds`) on a machine whose roofline is measured in the same run (`roofline`); rows go to append-only records
(`records`), and from there to the report, to README's tables and to the comparison with an earlier run.
"""

SUITES = (  # the modules of `suites`; named here so that the command line knows them without importing torch
    "encoder",
    "training_step",
    "attention",
    "layer_norm",
    "gelu",
    "embedding",
    "mask_tokens",
    "generator_head",
    "replace_tokens",
    "discriminator_loss",
    "adam",
    "data",
    "pretraining",
)
