"""From files to documents: a stream of pieces of text, none longer than a limit, with the document each belongs to.

A document ends at a blank line or at the end of its file (plain text), or is a row (jsonl, parquet, Arrow). Documents
are numbered in the order of the input. A document longer than ``part_characters`` comes in parts, cut at line ends; a
line longer than that is cut at a space. So memory stays bounded whatever the input, and where a part begins and
ends depends on the text alone.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from electra_fast.data.columns import column_rows
from electra_fast.data.sources import ByteStream, Source
from electra_fast.errors import ConfigError, CorpusError

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_LONGEST_ROW = 1 << 30
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class ReadOptions:
    """How text is taken from files.

    Attributes:
        documents: "blank-line" (a blank line or the end of the file ends a document) or "file" (only the latter).
        text_field: field of a jsonl row, column of a parquet or Arrow file.
        encoding: of plain text; jsonl, parquet and Arrow are UTF-8.
        errors: "strict" (bytes that do not decode are an error) or "replace".
        part_characters: longest piece of a document that is handed on at once.
    """

    documents: str = "blank-line"
    text_field: str = "text"
    encoding: str = "utf-8"
    errors: str = "strict"
    part_characters: int = 1 << 20

    def __post_init__(self) -> None:
        for name, allowed in (("documents", ("blank-line", "file")), ("errors", ("strict", "replace"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        try:
            codecs.getincrementaldecoder(self.encoding)
            b"x".decode(self.encoding, "replace")  # a codec that is no text encoding fails here
        except LookupError:
            raise ConfigError(
                f"encoding: expected a text encoding like utf-8, latin-1 or cp1252, got {self.encoding!r}"
            ) from None


@dataclass(frozen=True)
class DocumentPart:
    """Lines of one document. ``continues_line``: the text begins in the middle of a line too long for one part."""

    document: int
    part: int
    text: str
    continues_line: bool


@dataclass(frozen=True)
class Position:
    """A place between two parts: ``part`` parts of file number ``file`` are done; it begins with ``document``."""

    file: int = 0
    part: int = 0
    document: int = 0


@dataclass(frozen=True)
class _Piece:
    text: str
    begins_document: bool
    continues_line: bool


class DocumentReader:
    """Streams the documents of a list of files. ``bytes_done`` counts the bytes of the files read so far."""

    def __init__(self, files: list[Source], options: ReadOptions) -> None:
        self.files = files
        self.options = options
        self.bytes_done = 0

    def parts(self, start: Position | None = None) -> Iterator[tuple[DocumentPart, Position]]:
        """Parts from ``start`` on, each with the position behind it.

        Raises:
            CorpusError: a file is unreadable, damaged, or not in the format its name says.
        """
        start = start or Position()
        before = sum(source.bytes for source in self.files[: start.file])
        next_document = start.document
        for index in range(start.file, len(self.files)):
            skip = start.part if index == start.file else 0
            first_document = next_document
            part = 0
            self.bytes_done = before
            for done, piece in enumerate(self._pieces(self.files[index], before), 1):
                if piece.begins_document:
                    next_document += 1
                    part = 0
                else:
                    part += 1
                if done > skip:
                    text = DocumentPart(next_document - 1, part, piece.text, piece.continues_line)
                    yield text, Position(index, done, first_document)
            before += self.files[index].bytes
            self.bytes_done = before

    def _pieces(self, source: Source, before: int) -> Iterator[_Piece]:
        limit = self.options.part_characters
        if source.format in ("parquet", "arrow"):
            for text, share in column_rows(source, self.options.text_field, self.options.errors):
                self.bytes_done = before + int(share * source.bytes)
                yield from cut_documents([text], None, limit)
            return
        with ByteStream(source) as stream:
            if source.format == "jsonl":
                for text in self._json_rows(stream, before):
                    yield from cut_documents([text], None, limit)
            else:
                separator = _BLANK_LINE if self.options.documents == "blank-line" else None
                yield from cut_documents(self._decoded(stream, before), separator, limit)

    def _decoded(self, stream: ByteStream, before: int) -> Iterator[str]:
        """Text blocks with every kind of line end turned into ``\\n`` and a byte-order mark removed."""
        decoder = codecs.getincrementaldecoder(self.options.encoding)(self.options.errors)
        lines = io.IncrementalNewlineDecoder(decoder, translate=True)
        offset = 0
        for block in stream.blocks():
            pending = len(decoder.getstate()[0])
            text = self._decode(lines, block, offset - pending, stream.source, final=False)
            yield text.removeprefix(_BYTE_ORDER_MARK) if offset == 0 else text
            offset += len(block)
            self.bytes_done = before + stream.position
        pending = len(decoder.getstate()[0])
        yield self._decode(lines, b"", offset - pending, stream.source, final=True)

    def _decode(
        self, lines: io.IncrementalNewlineDecoder, block: bytes, offset: int, source: Source, *, final: bool
    ) -> str:
        try:
            return lines.decode(block, final)
        except UnicodeDecodeError as error:
            raise _undecodable(source, self.options.encoding, offset, error) from None

    def _json_rows(self, stream: ByteStream, before: int) -> Iterator[str]:
        field, source = self.options.text_field, stream.source
        for number, (offset, line) in enumerate(_byte_lines(stream), 1):
            self.bytes_done = before + stream.position
            try:
                text = line.decode("utf-8", self.options.errors)
            except UnicodeDecodeError as error:
                raise _undecodable(source, "utf-8", offset, error) from None
            if number == 1:
                text = text.removeprefix(_BYTE_ORDER_MARK)
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except RecursionError:
                raise CorpusError(
                    f"{source.path}, line {number}: brackets nested too deeply. Mend or remove the line"
                ) from None
            except ValueError as error:
                raise CorpusError(
                    f"{source.path}, line {number}: not JSON ({error}). Mend or remove the line"
                ) from None
            if isinstance(row, dict) and field in row and row[field] is None:
                continue  # an empty document, as a null of a parquet column
            if not isinstance(row, dict) or not isinstance(row.get(field), str):
                names = ", ".join(map(str, row)) if isinstance(row, dict) else f"a {type(row).__name__}"
                raise CorpusError(
                    f"{source.path}, line {number}: no text in field {field!r} (the row has: {names}). "
                    "Name the field with --text-field"
                )
            yield self._whole_characters(row[field], source, number)

    def _whole_characters(self, text: str, source: Source, number: int) -> str:
        """JSON can escape half of a surrogate pair, which is no character."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            if self.options.errors == "strict":
                raise CorpusError(
                    f"{source.path}, line {number}: an escape stands for half a character (a lone surrogate). "
                    "Use --errors replace to go on"
                ) from None
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text


def _undecodable(source: Source, encoding: str, offset: int, error: UnicodeDecodeError) -> CorpusError:
    unpacked = " of the unpacked text" if source.compression else ""
    other = "if the text is in another encoding name it with --encoding, or " if source.format == "text" else ""
    return CorpusError(
        f"{source.path}: byte 0x{error.object[error.start]:02x} at offset {offset + error.start}{unpacked} is not "
        f"{encoding}; {other}use --errors replace to go on"
    )


def _byte_lines(stream: ByteStream) -> Iterator[tuple[int, bytes]]:
    """(offset, line without its end) of every line; only one line and one block are held."""
    pending: list[bytes] = []
    offset = held = 0
    for block in stream.blocks():
        *ended, rest = block.split(b"\n")
        for line in ended:
            whole = b"".join([*pending, line])
            yield offset, whole
            offset += len(whole) + 1
            pending, held = [], 0
        pending.append(rest)
        held += len(rest)
        if held > _LONGEST_ROW:
            raise CorpusError(f"{stream.source.path}: the row at offset {offset} is longer than 1 GiB: is it jsonl?")
    yield offset, b"".join(pending)


def cut_documents(blocks: Iterable[str], separator: re.Pattern[str] | None, limit: int) -> Iterator[_Piece]:
    """Cut a stream of text into documents at ``separator``, and documents longer than ``limit`` characters into pieces.

    Where the pieces begin and end does not depend on how the text was split into blocks. Empty documents are left out.
    """
    rest = ""
    begins, continues = True, False
    for block in blocks:
        *ended, rest = separator.split(rest + block) if separator else [rest + block]
        for document in ended:
            yield from _cut_whole(document, limit, begins, continues)
            begins, continues = True, False
        # A cut leaves the line end in front of the rest, so that a blank line there is still seen as one.
        while True:
            cut = _cut_once(rest, limit)
            if cut is None:
                break
            text, rest, breaks_line = cut
            yield _Piece(text, begins, continues)
            begins, continues = False, breaks_line
        if len(rest) > 4 * limit:  # megabytes of nothing but spaces
            rest = rest.strip() + ("\n" if "\n" in rest[len(rest.rstrip()) :] else " ")
    yield from _cut_whole(rest, limit, begins, continues)


def _cut_whole(document: str, limit: int, begins: bool, continues: bool) -> Iterator[_Piece]:
    while (cut := _cut_once(document, limit)) is not None:
        text, document, breaks_line = cut
        yield _Piece(text, begins, continues)
        begins, continues = False, breaks_line
    if text := document.strip():
        yield _Piece(text, begins, continues)


def _cut_once(text: str, limit: int) -> tuple[str, str, bool] | None:
    """(piece of at most ``limit`` characters, what follows, whether the cut is inside a line); None if it all fits."""
    if len(text) <= limit:
        return None
    body = text.strip()
    if len(body) <= limit:
        return None
    start = len(text) - len(text.lstrip())
    at = body.rfind("\n", 1, limit + 1)
    if at < 0:
        at = body.rfind(" ", 1, limit + 1)
    if at < 0:
        at = limit
    gap = body[at : len(body) - len(body[at:].lstrip())]
    breaks_line = "\n" not in gap  # spaces may stand between the cut and the end of its line
    return body[:at].rstrip(), text[start + at :], breaks_line
