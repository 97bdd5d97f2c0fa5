"""docs/index-api.md: its Python runs, its commands parse, its table is the schema."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from ildsdk.cli import cli


@pytest.fixture
def page(repo: Path) -> str:
    return (repo / "docs" / "index-api.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def test_python_blocks_run_in_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks(page, "python")
    assert len(found) >= 7
    names: dict[str, object] = {}
    for number, block in enumerate(found, start=1):
        exec(compile(block, f"index-api.md block {number}", "exec"), names)
    for name in ("index", "copy"):
        names[name].close()  # type: ignore[attr-defined]
    assert "did you mean 'IPF-ILD'" in capsys.readouterr().out


def test_commands_parse(page: str) -> None:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    group = cli.commands["index"]
    assert isinstance(group, click.Group)
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == ["ildsdk", "index"]
        known = {opt for param in group.commands[words[2]].params for opt in param.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_the_table_of_columns_is_the_schema(page: str) -> None:
    pytest.importorskip("pyarrow")
    from ildsdk.index.parquet import _schema

    table = page[page.index("| column | type |") : page.index("### npz")]
    named = {
        name: line.split("|")[2].strip()
        for line in table.splitlines()[2:]
        if line.startswith("|")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    schema = _schema(4)
    assert set(named) == set(schema.names)
    for name, told in named.items():
        field = schema.field(name)
        assert ("null" in told) == field.nullable, name
        assert told.startswith(str(field.type).partition("<")[0].removesuffix("[day]")), name
