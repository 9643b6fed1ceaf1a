"""The names that the package of data offers, and the errors it raises."""

import pytest

from electra_fast.data import prepare
from electra_fast.errors import ConfigError, CorpusError, DiskFullError, ElectraError, ShardError, TokenizerError


def test_names_of_the_package():
    import electra_fast.data as package

    assert package.__dir__() == sorted(package.__all__)
    assert package.prepare is prepare
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_errors_are_the_users():
    for kind in (ConfigError, CorpusError, DiskFullError, ShardError, TokenizerError):
        assert issubclass(kind, ElectraError)
