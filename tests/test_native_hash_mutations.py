"""The tests notice when a bound of the certified search is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bound_mutations import Mutation, edited, read_mutations, run_mutant

MUTATIONS = read_mutations()


def test_every_mutation_finds_its_place(repo: Path) -> None:
    names = [mutation.name for mutation in MUTATIONS]
    assert len(set(names)) == len(names) >= 50
    for mutation in MUTATIONS:
        edited(mutation, (repo / "native_hash" / mutation.file).read_text())


@pytest.mark.slow
def test_the_tests_pass_without_a_mutation(tmp_path: Path) -> None:
    assert run_mutant(None, tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_bound_is_noticed(tmp_path: Path, mutation: Mutation) -> None:
    verdict = run_mutant(mutation, tmp_path)
    assert verdict is not None
    print(f"{mutation.name}: {verdict.killed_by}")
    assert verdict.is_expected, "the mutant lives" if not mutation.lives else "it was noticed"
