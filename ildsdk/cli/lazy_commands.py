"""Commands of a group that are imported when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, MutableMapping

import click


class LazyCommands(MutableMapping[str, click.Command]):
    """What ``click.Group`` takes as its commands: names are known, one asked for is imported.

    Running one command then costs no import of the others; ``--help`` lists them and imports all.

    Parameters
    ----------
    package : str
        Where the modules lie; one holds its command under its own name.
    names : iterable of str
        Of the commands; ``-`` is ``_`` in the module's name.
    """

    def __init__(self, package: str, names: Iterable[str]) -> None:
        self._package = package
        self._commands: dict[str, click.Command | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> click.Command:
        command = self._commands[name]
        if command is None:
            home = name.replace("-", "_")
            command = getattr(importlib.import_module(f"{self._package}.{home}"), home)
            assert isinstance(command, click.Command)
            self._commands[name] = command
        return command

    def __contains__(self, name: object) -> bool:
        return name in self._commands

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)
