"""Other libraries' remarks, kept from the user who can do nothing about them."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def errors_only() -> Iterator[None]:
    """Warnings, log lines below errors and progress bars of exporters and loaders are not shown in the block."""
    from transformers.utils import logging as theirs

    disabled, bars = logging.root.manager.disable, theirs.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    theirs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        if bars:
            theirs.enable_progress_bar()
