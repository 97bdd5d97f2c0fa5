"""One slice, pixels in memory to its ten neighbors of 28,942: end to end and by stage.

    python -m pytest benchmarks/bench_slice.py --benchmark-enable

The reference stack runs twice in each round: with its own mask, which is the whole path of each
side, and with ours handed in, where both have to give the same answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers

peers.need(*peers.REFERENCE_STACK)

from benchmarks.contest import Contender, Report, Rounds, interleaved  # noqa: E402
from benchmarks.equality import compare_answers  # noqa: E402
from benchmarks.ours import NETWORK_STAGES, Ours  # noqa: E402
from benchmarks.reference_mask import lung_mask  # noqa: E402
from benchmarks.reference_stack import ReferenceStack  # noqa: E402
from benchmarks.slices import BenchSlice, alike, read_slices  # noqa: E402

N_SLICES = 6
N_ROUNDS = {"phantom": 36, "real CT": 18}
OURS = ("ildsdk fp32", "ildsdk int8")
STACK, STACK_OUR_MASK = "reference stack", "reference stack, our mask"
ALL_BUT_NETWORK = "all but network"
STAGES = (
    "mask", "radiomics", "model_input", *NETWORK_STAGES, "search", ALL_BUT_NETWORK,
)  # fmt: skip
STAGED = "{}, staged"

Contest = tuple[dict[str, Contender], dict[str, Rounds]]


@pytest.fixture(scope="module", params=N_ROUNDS)
def source(request: pytest.FixtureRequest) -> str:
    """Where the slices come from."""
    return request.param


@pytest.fixture(scope="module")
def contest(
    source: str,
    ours_by_precision: dict[str, Ours],
    default_precision: str,
    reference_stack: ReferenceStack,
    phantom_files: Path,
    rounds: Callable[[int], int],
) -> Contest:
    """All contenders in turn, once for all tests of a source."""
    slices = _slices(source, reference_stack, phantom_files)

    def work(number: int) -> tuple[Any, ...]:
        one = slices[number % len(slices)]
        return one.varied(number), one.pixel_spacing_mm, one.lung_mask

    contenders: dict[str, Contender] = {}
    for precision, ours in ours_by_precision.items():
        facts = {
            "precision": precision,
            "is_default": precision == default_precision,
            "equality": compare_answers(ours, reference_stack, slices),
        }
        for name, act in (
            (f"ildsdk {precision}", lambda given, ours=ours: ours.query(*given[:2])),
            (
                STAGED.format(f"ildsdk {precision}"),
                lambda given, ours=ours: ours.staged(*given[:2])[1],
            ),
        ):
            contenders[name] = Contender(act=act, role="ours", prepare=work, facts=facts)
    for name, n_masks in ((STACK, 0), (STACK_OUR_MASK, 1)):
        contenders[name] = Contender(
            act=lambda given, n=n_masks: (
                reference_stack.query(*given[:2], mask=given[2] if n else None).timings_ms
            ),
            role="variant" if n_masks else "rival",
            prepare=work,
        )
    return contenders, interleaved(contenders, rounds(N_ROUNDS[source]))


def _slices(source: str, stack: ReferenceStack, phantom_files: Path) -> list[BenchSlice]:
    def mask_of(pixels_hu: Any, spacing_mm: tuple[float, float]) -> Any:
        return lung_mask(stack.window(pixels_hu), spacing_mm)

    if source == "phantom":
        found = read_slices(phantom_files, mask_of)
    else:
        folder = Path(__file__).resolve().parents[2] / "shared" / "data"
        folder = Path(os.environ.get("ILDSDK_TEST_DATA", folder)) / "dicom" / "tcga_luad"
        if not folder.is_dir():
            pytest.skip("real CT is absent (set ILDSDK_TEST_DATA to its folder)")
        found = [one for one in read_slices(folder, mask_of) if one.pixels_hu.shape == (512, 512)]
    chosen = alike(found, N_SLICES)
    assert len(chosen) == N_SLICES, f"only {len(chosen)} slices on which the masks agree"
    return chosen


@pytest.mark.parametrize("name", [*OURS, STACK, STACK_OUR_MASK])
def test_one_slice(report: Report, source: str, contest: Contest, name: str) -> None:
    contenders, found = contest
    if name not in contenders:
        pytest.skip("the bundle has no int8 backbone")
    group = f"slice|{source}|512x512|pixels to top 10 of 28942"
    report(group, name, contenders[name], found[name].seconds)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", [*OURS, STACK])
def test_stage(report: Report, source: str, contest: Contest, name: str, stage: str) -> None:
    contenders, found = contest
    key = name if name == STACK else STAGED.format(name)
    if key not in contenders:
        pytest.skip("the bundle has no int8 backbone")
    seconds = [stage_ms(laps, stage) / 1e3 for laps in found[key].results]
    group = f"slice stage|{source}|512x512|{stage}"
    report(group, name, contenders[key], seconds)


def stage_ms(timings_ms: dict[str, float], stage: str) -> float:
    """Milliseconds of a stage, or of everything but backbone and fusion net."""
    if stage == ALL_BUT_NETWORK:
        return sum(ms for name, ms in timings_ms.items() if name not in NETWORK_STAGES)
    return timings_ms[stage]
