"""The ``electra-fast`` command: parses, calls, shows. What it calls is importable from Python under the same name."""

from electra_fast.cli.app import main

__all__ = ["main"]
