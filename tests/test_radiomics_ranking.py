"""Answers of the product do not depend on the radiomics engine."""

from __future__ import annotations

import pytest

from ildsdk import Retriever, defaults

pytest.importorskip("radiomics")


@pytest.mark.slow
def test_both_engines_rank_the_phantom_index_alike() -> None:
    found = []
    for engine in ("fast", "pyradiomics"):
        with Retriever.open(provider="cpu", radiomics_engine=engine) as retriever:  # type: ignore[arg-type]
            found.append(retriever.query(defaults.demo_study_path()).studies[0])
    ranked = [
        [(one.item_id, one.rank) for answer in study.slices for one in answer.neighbors]
        for study in found
    ]
    cases = [[case.case_id for case in study.cases] for study in found]
    scores = [[one.score for answer in study.slices for one in answer.neighbors] for study in found]
    gap = max(abs(a - b) for a, b in zip(*scores, strict=True))
    print(f"\n{len(ranked[0])} neighbors of {len(found[0].slices)} slices, largest gap {gap:.1e}")
    assert ranked[0] == ranked[1]
    assert cases[0] == cases[1]
    assert len(ranked[0]) > 0
