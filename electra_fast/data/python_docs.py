"""The English text that every CPython carries: the language reference behind ``help()`` and the docstrings of the
standard library, tests included.

More than two megabytes of real prose that are there without a download; ``electra-fast demo`` pretrains on them.
"""

import ast
import builtins
import importlib.machinery
import inspect
import pydoc
import re
import sys
import sysconfig
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from electra_fast.files import write_text

_NOT_PYTHONS_OWN = {"site-packages", "dist-packages", "__pycache__"}


def paragraphs(text: str) -> list[str]:
    """The prose of a docstring or help topic, one paragraph a string, spaces collapsed.

    Doctests, tables, rulers and code are left out: a paragraph stays when it has at least four words and is mostly
    letters.
    """
    kept = []
    for block in re.split(r"\n\s*\n", text):
        prose = " ".join(block.split())
        prose = re.sub(r"[*=~^_-]{3,}", " ", prose).replace("``", "").replace("**", "").strip()
        letters = sum(character.isalpha() or character == " " for character in prose)
        if not prose.startswith((">>>", "...", "$ ", "| ")) and prose.count(" ") >= 3 and letters >= 0.75 * len(prose):
            kept.append(prose)
    return kept


def _docstrings(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # the standard library carries deliberately broken files
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield text


def _topics() -> Iterator[list[str]]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield paragraphs(topics[name])


def _library() -> Iterator[list[str]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if not _NOT_PYTHONS_OWN.intersection(path.relative_to(root).parts):
            source = path.read_text(encoding="utf-8", errors="replace")
            yield [paragraph for text in _docstrings(source) for paragraph in paragraphs(text)]


def _compiled_modules() -> Iterator[list[str]]:
    """What is written in C has its docstrings in the objects, not in a source file."""
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    folder = Path(sysconfig.get_paths()["platstdlib"]) / "lib-dynload"
    names = {builtins.__name__, *sys.builtin_module_names}
    names |= {path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}")}
    for name in sorted(names):
        if not name.startswith(("_test", "_xx", "xx")):  # made to test the interpreter
            try:
                module = import_module(name)
            except ImportError:  # a library it needs is not on this machine
                continue
            yield [paragraph for text in _members(module) for paragraph in paragraphs(text)]


def _members(module: ModuleType) -> Iterator[str]:
    for _, member in sorted(vars(module).items()):
        if callable(member):
            yield pydoc.getdoc(member)
        if inspect.isclass(member):
            for _, attribute in sorted(vars(member).items()):
                if callable(attribute) or inspect.isdatadescriptor(attribute):
                    yield pydoc.getdoc(attribute)


def documents() -> Iterator[list[str]]:
    """Documents in a fixed order, each a list of paragraphs; a paragraph that was seen before is left out."""
    seen: set[str] = set()
    for source in (_topics(), _library(), _compiled_modules()):
        for document in source:
            fresh = [paragraph for paragraph in dict.fromkeys(document) if paragraph not in seen]
            seen.update(fresh)
            if fresh:
                yield fresh


def write(path: Path) -> int:
    """Write the documents to ``path``, all or nothing: a paragraph a line and a blank line between documents; returns
    the number of characters.

    Raises:
        DiskFullError: no space left; there is no file, or the older one.
    """
    text = "\n\n".join("\n".join(document) for document in documents()) + "\n"
    write_text(path, text)
    return len(text)
