"""Kills the int8 stage of ``default-bundle`` at chosen lines.

Run by ``python -m tests.int8_stage FOLDER``, a process of its own and not the tests': it forks, and
torch must not have run before that.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from export import default_bundle
from export.default_bundle import SHIPPED_NAME, DefaultBundleSettings
from export.quantization.settings import QuantizeSettings
from ildsdk.bundle import Bundle
from tests.quantize_factory import World, make_world

STAGE = DefaultBundleSettings(
    quantization=QuantizeSettings(
        methods=("mse",), n_calibration=4, n_altered=4, n_correction=4, n_sensitivity=2,
        n_choosing=8, min_top1_label=0.5, min_overlap=0.3, min_cosine=0.9,
        min_median_cosine=0.9, top_n=5, with_symmetric=True,
    )
)  # fmt: skip
LINES = ("int8: sensitivity", "symmetric int8: answers", "saturation")
"""The stage is killed when it says the first line with each of these."""


def unfinished(world: World, folder: Path) -> Path:
    """Folder of an input size with all stages before int8 done."""
    shutil.copytree(world.bundle.folder, folder / "bundle")
    shutil.copytree(world.index, folder / "index")
    return folder


def run_stage(folder: Path, kill_at: str | None = None) -> list[str]:
    """Run the stage; what it says."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if kill_at is not None and kill_at in line:
            os.kill(os.getpid(), signal.SIGKILL)

    default_bundle._add_int8(folder, STAGE, say)
    return said


def killed_stage(folder: Path, kill_at: str) -> None:
    pid = os.fork()
    if pid == 0:
        run_stage(folder, kill_at)
        os._exit(0)  # only where it was not killed
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        f"{part}/{path.name}": path.read_bytes()
        for part in ("int8", SHIPPED_NAME)
        for path in sorted((folder / part).iterdir())
    }


def main(folder: Path) -> None:
    world = make_world(folder / "world")
    default_bundle.load_slice_set = lambda _: world.slices
    killed = unfinished(world, folder / "killed")
    for line in LINES:
        killed_stage(killed, line)
        assert {path.name for path in killed.iterdir()} == {"bundle", "index"}, line
    never_killed = unfinished(world, folder / "never-killed")
    said = run_stage(never_killed)
    expected = content_of(never_killed)
    assert len(expected) == 8
    assert run_stage(killed) == said
    assert content_of(killed) == expected
    made = Bundle.open(killed / SHIPPED_NAME)
    assert made.bundle_hash == world.bundle.bundle_hash
    assert made.backbone_int8_symmetric is not None
    shutil.rmtree(killed / SHIPPED_NAME)
    assert run_stage(killed) == []  # only the bundle is made anew
    assert content_of(killed) == expected
    print("ends as if never killed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
