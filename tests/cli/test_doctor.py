"""doctor: the facts, in words and in JSON, also where something is missing."""

import json
import re
import sys
from importlib import metadata

import pytest
import torch
import typer
from typer.testing import CliRunner

from electra_fast import diagnostics
from electra_fast.cli.doctor import doctor
from electra_fast.ops import OPS


@pytest.fixture
def call():
    app = typer.Typer()
    app.command()(doctor)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200"})
        assert result.exit_code == 0
        return result.output

    return run


def test_every_op_has_a_backend_and_reasons(call):
    shown = call()
    for op in OPS:
        assert f"{op}: native" in shown
    assert re.search(r"not triton: \w+", shown)
    assert "not reference: could run, but comes after native" in shown
    assert torch.__version__ in shown


def test_json_says_the_same(call):
    found = json.loads(call("--json", "--dtype", "float16"))
    assert found["versions"]["torch"] == metadata.version("torch")
    assert found["ops"]["cpu"]["attention"]["reference"] is None
    assert "float16" in found["ops"]["cpu"]["attention"]["native"]
    assert set(found["devices"]["cpu"]) == {"name", "cores", "torch threads", "torch capability"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_optimizer_is_asked_about_the_weights(call, dtype):
    """Training in another type keeps float32 weights, so that its adam is the one for float32."""
    asked = json.loads(call("--json", "--dtype", dtype))["ops"]["cpu"]["adam"]
    assert asked == json.loads(call("--json"))["ops"]["cpu"]["adam"]
    assert asked["native"] is None
    assert "adam: native, on weights, which stay float32" in call("--dtype", dtype)


def test_the_instruction_sets_are_listed(call):
    assert re.search(r"instruction sets built +baseline(, \w+)* *\n", call())


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "electra_fast._native", None)
    monkeypatch.setattr(diagnostics, "_PACKAGES", ("no-such-package",))
    found = diagnostics.report()
    assert found.native["built"].startswith("no: ")
    assert found.versions["no-such-package"] == "not installed"


def test_the_instruction_set_wished_for_is_shown(monkeypatch):
    monkeypatch.setenv("ELECTRA_CPU_CAPABILITY", "avx2")
    assert "(ELECTRA_CPU_CAPABILITY=avx2)" in diagnostics.report().native["instruction set in use"]
