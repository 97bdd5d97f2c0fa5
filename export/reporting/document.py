"""The report as data: sections of paragraphs, tables and pictures, written twice alike."""

from __future__ import annotations

import dataclasses
import unicodedata


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """Plain text, without markup."""

    text: str
    kind: str = "paragraph"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list of plain texts."""

    texts: tuple[str, ...]
    kind: str = "items"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of plain texts; the first cell of each row is its heading.

    Attributes
    ----------
    is_numeric : bool
        Cells after the first hold numbers and stand flush right.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_numeric: bool = True
    kind: str = "table"

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row of {len(row)} cells under {len(self.header)} headings")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture beside the report, with what it shows in words."""

    file_name: str
    caption: str
    alt: str
    kind: str = "picture"


Block = Paragraph | Items | Table | Picture


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with what stands under it.

    Attributes
    ----------
    data : str
        Which data the figures are about; ends the heading. Empty where there are none.
    """

    anchor: str
    title: str
    blocks: tuple[Block, ...]
    data: str = ""

    @property
    def heading(self) -> str:
        """Title and data."""
        return f"{self.title}: {self.data}" if self.data else self.title


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The whole report.

    Attributes
    ----------
    warnings : tuple of str
        Shown first and loudest.
    """

    title: str
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]


def shown(text: object) -> str:
    """Text from outside (case ids, settings) on one line, nothing invisible in it.

    Control, format (bidirectional marks among them) and private characters and lone surrogates
    become U+FFFD.
    """
    return "".join(
        "\ufffd" if unicodedata.category(character).startswith("C") else character
        for character in str(text)
    )


def percent(share: float | None, digits: int = 1) -> str:
    """``0.8213`` to ``82.1``, or a dash where there is no value."""
    if share is None:
        return "–"
    # Equal shares summed in another order shall not round apart.
    return f"{round(100 * share, 9):.{digits}f}"


def number(value: float | None, digits: int = 3) -> str:
    """Fixed digits, or a dash where there is no value."""
    return "–" if value is None else f"{value:.{digits}f}"


def points(share: float) -> str:
    """``0.032`` to ``+3.2``: a difference in percent points, with a real minus sign."""
    return f"{100 * share:+.1f}".replace("-", "\u2212")


def points_interval(low: float, high: float) -> str:
    """Both ends, kept on one line."""
    return f"{points(low)}\u00a0to\u00a0{points(high)}"
