"""Peak memory of a fresh process that answers a whole study.

    python -m benchmarks.study_memory STUDY --index FOLDER           # ours
    python -m benchmarks.study_memory STUDY --reference FOLDER       # the reference stack

Prints JSON: peak resident memory in MB, seconds, slices answered.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def peak_mb() -> float:
    """Largest resident memory of this process so far, MB of 1e6 bytes.

    Not ``getrusage``: there a process starts with what its parent had when it was forked.

    Raises
    ------
    OSError
        The system is not Linux.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    """Answer the study by one side and print what it took."""
    parser = argparse.ArgumentParser(description="Peak memory of one study.")
    parser.add_argument("study", type=Path)
    side = parser.add_mutually_exclusive_group(required=True)
    side.add_argument("--index", type=Path)
    side.add_argument("--reference", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    started = time.perf_counter()
    n_slices = _ours(asked) if asked.index else _reference(asked)
    seconds = time.perf_counter() - started
    print(json.dumps({"peak_mb": peak_mb(), "seconds": seconds, "n_slices": n_slices}))


def _ours(asked: argparse.Namespace) -> int:
    from ildsdk import QuerySettings, Retriever

    with Retriever.open(index=asked.index, provider="cpu", n_threads=asked.threads) as retriever:
        result = retriever.query(asked.study, QuerySettings(every_mm=0))
    return sum(len(study.slices) for study in result.studies)


def _reference(asked: argparse.Namespace) -> int:
    from benchmarks.reference_stack import ReferenceStack

    stack = ReferenceStack.open(asked.reference, n_threads=asked.threads)
    answers = [stack.query_file(path).neighbors for path in sorted(asked.study.iterdir())]
    return len(answers)


if __name__ == "__main__":
    main()
