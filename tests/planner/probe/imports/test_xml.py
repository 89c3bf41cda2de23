"""XML from strangers."""

from __future__ import annotations

import pytest

from planner.probe.imports.xml import MAX_DEPTH, parse_xml
from profiles.errors import ConfigError

BILLION = """<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">
<!ENTITY lol3 "&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;">]><system>&lol3;</system>"""
OUTSIDE = """<!DOCTYPE system [<!ENTITY secret SYSTEM "file:///etc/passwd">]><system>&secret;</system>"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BILLION, "document type of its own"),
        (OUTSIDE, "document type of its own"),
        ("<system>&undefined;</system>", "not well-formed"),
        ("<system><cpu></system>", "dump:1:16: not well-formed"),
        ("", "not well-formed"),
        ("<a/><b/>", "not well-formed"),
        ("<a>" * (MAX_DEPTH + 1), "nested"),
        ("<a>\ud800</a>", "not well-formed"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_xml(text, name="dump")


def test_external_dtd_is_named_but_never_fetched():
    root = parse_xml(
        '<!DOCTYPE topology SYSTEM "file:///nonexistent.dtd"><topology a="1">t</topology>', name="dump"
    )
    assert (root.tag, root.attributes, root.text) == ("topology", {"a": "1"}, "t")


def test_descendants_come_in_document_order():
    root = parse_xml("<a><b><c/></b><d/></a>", name="dump")
    assert [element.tag for element in root.descendants()] == ["b", "c", "d"]
    assert [element.tag for element in next(root.descendants("c")).ancestors()] == ["b", "a"]
