"""XML from strangers, read safely: no entities, no internal DTD, limits on size and depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from profiles.errors import ConfigError

MAX_CHARACTERS = 32 << 20
MAX_DEPTH = 200
MAX_ELEMENTS = 500_000


@dataclass(kw_only=True)
class Element:
    """One element: its tag, attributes, children and text."""

    tag: str
    attributes: dict[str, str]
    parent: Element | None = field(default=None, repr=False)
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def get(self, name: str) -> str | None:
        """Return an attribute that is there and not empty, or None."""
        return self.attributes.get(name) or None

    def number(self, name: str) -> int | None:
        """Return an attribute that is a whole number (decimal or 0x…) of moderate size, or None."""
        text = self.attributes.get(name, "")
        try:
            value = int(text, 0) if len(text) <= 20 else None
        except ValueError:
            return None
        return value

    def descendants(self, tag: str | None = None) -> Iterator[Element]:
        """Yield all elements below this one, in document order."""
        stack = list(reversed(self.children))
        while stack:
            element = stack.pop()
            if tag is None or element.tag == tag:
                yield element
            stack.extend(reversed(element.children))

    def ancestors(self) -> Iterator[Element]:
        """Yield the elements above this one, the nearest first."""
        above = self.parent
        while above is not None:
            yield above
            above = above.parent


def parse_xml(text: str, *, name: str) -> Element:
    """Return the root element.

    Raises:
        ConfigError: with line and column for text that is not well-formed, declares entities, brings a DTD of
            its own, or is too large or too deep.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{name}: larger than {MAX_CHARACTERS >> 20} MiB; is this the right file?")
    parser = expat.ParserCreate()
    builder = _Builder(name=name, parser=parser)
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = builder.doctype
    parser.EntityDeclHandler = builder.entity
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        where = f"{name}:{error.lineno}:{error.offset + 1}"
        raise ConfigError(f"{where}: not well-formed XML: {expat.ErrorString(error.code)}") from None
    except ValueError as error:
        raise ConfigError(f"{name}: not well-formed XML: {error}") from None
    if builder.root is None:
        raise ConfigError(f"{name}: no XML element in it")
    return builder.root


@dataclass(kw_only=True)
class _Builder:
    name: str
    parser: expat.XMLParserType
    root: Element | None = None
    open: list[Element] = field(default_factory=list)
    count: int = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.count += 1
        if self.count > MAX_ELEMENTS or len(self.open) >= MAX_DEPTH:
            raise self._error("more elements, or more deeply nested ones, than any topology has")
        parent = self.open[-1] if self.open else None
        element = Element(tag=tag, attributes=attributes, parent=parent)
        if parent is None:
            self.root = element
        else:
            parent.children.append(element)
        self.open.append(element)

    def end(self, _tag: str) -> None:
        self.open.pop()

    def data(self, text: str) -> None:
        if self.open:
            self.open[-1].text += text

    def doctype(self, _name: str, _system: str | None, _public: str | None, subset: bool) -> None:
        if subset:
            raise self._error("a document type of its own is not accepted")

    def entity(self, *_: object) -> None:
        raise self._error("entities are not accepted")

    def _error(self, message: str) -> ConfigError:
        return ConfigError(f"{self.name}:{self.parser.CurrentLineNumber}: {message}")
