"""Reading CoNLL files: what is a sentence, which columns count, and every way a file can be broken."""

import gzip

import pytest

from electra_fast.data.conll import read_conll
from electra_fast.errors import DataError

pytest.importorskip("datasets", reason="needs the optional package datasets")


@pytest.fixture
def write(tmp_path):
    def make(text, name="x.conll"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def sentences(path, **options):
    read = read_conll(path, **options)
    return list(zip(read["tokens"], read["tags"], strict=True))


def test_blank_lines_part_sentences_whatever_ends_the_file(write):
    expected = [(["Ann", "ran"], ["B-per", "O"]), (["Hi"], ["O"])]
    for text in (
        "Ann\tB-per\nran\tO\n\nHi\tO\n\n",
        "\n\nAnn\tB-per\r\nran\tO\r\n\t\r\n \nHi\tO",
        "\ufeffAnn B-per\nran  O \n\nHi O\n",
    ):
        assert sentences(write(text)) == expected
    assert sentences(write(gzip.compress(b"Hi\tO\n"), "x.conll.gz")) == [(["Hi"], ["O"])]


def test_the_first_and_the_last_column_are_read_unless_others_are_named(write):
    path = write("-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nsaid VBD B-VP O\n\n")
    assert sentences(path) == [(["EU", "said"], ["B-ORG", "O"])]
    assert sentences(path, token_column=2, tag_column=3) == [(["NNP", "VBD"], ["B-NP", "B-VP"])]
    with pytest.raises(DataError, match=r"x\.conll, line 3: 4 columns, but the tag is to be in column 5"):
        read_conll(path, tag_column=5)


def test_comments_are_left_out_and_tokens_that_look_like_them_are_not(write):
    text = "# sent_id = 1\n# text = # a\n#\tO\na\tO\n\n# id 4 domain=dev\n#1\tB-x\n\n# NN\n"
    assert sentences(write(text.replace("# NN\n", "#\tO\n"))) == [
        (["#", "a"], ["O", "O"]),
        (["#1"], ["B-x"]),
        (["#"], ["O"]),
    ]


def test_only_line_feeds_end_lines_and_only_spaces_part_columns(write):
    assert sentences(write("a\u2028b\tO\n\u00a0\tO\n")) == [(["a\u2028b", "\u00a0"], ["O", "O"])]


def test_a_file_without_tags_is_read_where_none_are_needed(write):
    path = write("Ann\nran\n\nHi\n")
    assert read_conll(path, labelled=False).to_dict() == {"tokens": [["Ann", "ran"], ["Hi"]]}
    with pytest.raises(DataError, match="line 1: one column, expected a token and its tag"):
        read_conll(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tO\nb\n", r"x\.conll, line 2: one column, expected 2 as in line 1"),
        ("a\tO\n\nb\tNN\tO\n", r"x\.conll, line 3: 3 columns, expected 2 as in line 1"),
        ("a\tO\n\tO\n", r"x\.conll, line 2: the token is empty"),
        ("a\t\nb\tO\n", r"x\.conll, line 1: the tag is empty"),
        ("", r"x\.conll holds no sentence"),
        ("\n \n", r"x\.conll holds no sentence"),
        (b"a\tO\n\xff\tO\n", r"x\.conll is not UTF-8 \(byte 0xff\)"),
    ],
)
def test_a_broken_file_is_named_with_the_line(write, text, message):
    with pytest.raises(DataError, match=message) as error:
        read_conll(write(text))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none\.conll: No such file"):
        read_conll(tmp_path / "none.conll")
