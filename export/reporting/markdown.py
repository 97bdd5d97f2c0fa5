"""The report as Markdown; texts from outside cannot become markup."""

from __future__ import annotations

import re

from export.reporting.document import Block, Document, Items, Paragraph, Picture, Table

_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<!\w)_|_(?!\w)")


def markdown(document: Document, pictures_folder: str) -> str:
    """The document as text; pictures by relative path."""
    lines = [f"# {_text(document.title)}", ""]
    lines += [line for warning in document.warnings for line in (f"> **{_text(warning)}**", ">")]
    lines[-1] = ""
    for section in document.sections:
        lines += [f"## {_text(section.heading)}", ""]
        for block in section.blocks:
            lines += [*_block(block, pictures_folder), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _block(block: Block, pictures_folder: str) -> list[str]:
    match block:
        case Paragraph():
            return [_text(block.text)]
        case Items():
            return [f"- {_text(text)}" for text in block.texts]
        case Picture():
            return [
                f"![{_text(block.alt)}]({pictures_folder}/{block.file_name})",
                "",
                f"*{_text(block.caption)}*",
            ]
        case Table():
            rule = ["---", *["---:" if block.is_numeric else "---"] * (len(block.header) - 1)]
            rows = [block.header, *block.rows]
            cells = [f"| {' | '.join(_text(cell) for cell in row)} |" for row in rows]
            return [
                f"**{_text(block.caption)}**",
                "",
                cells[0],
                f"| {' | '.join(rule)} |",
                *cells[1:],
            ]


def _text(text: str) -> str:
    escaped = _MARKUP.sub(lambda found: "\\" + found.group(), text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
