"""What all pages are made of."""

from html.parser import HTMLParser

from electra_fast import page


class Strict(HTMLParser):
    """An unclosed tag, or one that closes another, is an error."""

    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_what_a_user_wrote_is_text_and_never_a_tag():
    said = "<script>alert('&')</script>"
    parts = [page.remark(said), page.note(said), page.table([[said, page.Html("<b>3</b>")]], [said]), ""]
    text = page.document(said, [*parts, page.image(b"png", said)])
    found = Strict()
    found.feed(text)
    assert found.open == []
    assert found.texts.count(said) == 5
    assert "<b>3</b>" in text
    assert "<script" not in text


def test_a_table():
    numbers = page.table([["a", 0.5, True]], ["", "x", "y"], numbers=True)
    assert '<td>a</td><td class="number">0.5</td><td class="number">yes</td>' in numbers
    assert page.table([]) == "<table><tbody></tbody></table>"
