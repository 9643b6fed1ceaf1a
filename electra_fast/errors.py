"""Mistakes a user can make, each with a one-line message that says what to do.

The command line prints ``error: <message>`` for any of these and exits with code 2; everything else is a bug and keeps
its traceback.
"""


class ElectraError(Exception):
    """A mistake of the user's, or of the machine's (a full disk): the message is one line and says what to do."""


class ConfigError(ElectraError):
    """An option or configuration value that is unknown, ill-typed, out of range or at odds with another."""


class CorpusError(ElectraError):
    """The input text is missing, empty, unreadable or not in the promised format."""


class DataError(ElectraError):
    """Task data (a table, a CoNLL or SQuAD file, an input to predict) that is missing, damaged or cannot be used."""


class TokenizerError(ElectraError):
    """A tokenizer that cannot be loaded or trained, or lacks a token ELECTRA needs."""


class ShardError(ElectraError):
    """A prepared corpus that is missing, unfinished, damaged, or made with another tokenizer."""


class CheckpointError(ElectraError):
    """A checkpoint that is missing, damaged, or of another model."""


class ExportError(ElectraError):
    """An exported model that does not compute what its source does; nothing of it is kept."""


class DiskFullError(ElectraError):
    """The disk (or the user's quota on it) is full; nothing half-written is left under a final name."""


class DivergenceError(ElectraError):
    """Training that cannot go on: the loss or the gradients are not finite."""


class RankError(ElectraError):
    """Another process of a run on several devices failed; the message is its own where there is one."""
