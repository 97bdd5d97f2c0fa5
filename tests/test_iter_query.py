"""Answers stream out; cancel, time limit and an early close leave nothing behind."""

from __future__ import annotations

import _thread
import dataclasses
import gc
import itertools
import os
import shutil
import signal
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ildsdk import (
    ConfigError,
    NoUsableSliceError,
    QueryCancelledError,
    QuerySettings,
    QueryTimeoutError,
    Retriever,
    SliceAnswer,
    StudyAnswer,
    cli,
    study_encoding,
)
from ildsdk.ingest import build_index, read_cases_csv
from ildsdk.records import CtSlice, SkippedItem
from ildsdk.settings import RuntimeSettings
from tests.archive_factory import write_query_study, write_small_archive
from tests.bundle_factory import write_tiny_bundle
from tests.test_pipeline import stream_threads

EVERY_SLICE = QuerySettings(every_mm=0)
N_SLICES = 24
N_THREADS = 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle, index, a long study as folder and zip, and two studies in one folder."""
    from benchmarks.long_study import write_long_study

    folder = tmp_path_factory.mktemp("iter")
    bundle = write_tiny_bundle(folder / "bundle", with_maps=True)
    table = write_small_archive(folder / "archive", ("IPF-ILD", "Normal"), 2)
    build_index(
        folder / "index", read_cases_csv(table), bundle, settings=RuntimeSettings(provider="cpu")
    )
    write_long_study(folder / "long", N_SLICES)
    with zipfile.ZipFile(folder / "long.zip", "w") as archive:
        for path in sorted((folder / "long").iterdir()):
            archive.write(path, path.name)
    write_query_study(folder / "two" / "a", seed=98)
    write_query_study(folder / "two" / "b", seed=99)
    (folder / "two" / "notes.txt").write_text("not DICOM")
    return folder


@pytest.fixture(scope="module")
def retriever(world: Path) -> Iterator[Retriever]:
    with Retriever.open(
        world / "bundle",
        world / "index",
        provider="cpu",
        n_threads=N_THREADS,
        remembered_slices=0,
    ) as opened:
        opened.query(world / "long")  # opens what is opened once
        yield opened


def left_behind() -> tuple[set[str], set[str], set[str]]:
    """Open files, threads and temporary files of this process."""
    gc.collect()
    files = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            files.add(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # the listing itself
            continue
    return (
        files,
        {one.name for one in threading.enumerate()},
        set(os.listdir(tempfile.gettempdir())),
    )


@pytest.fixture
def nothing_is_left(retriever: Retriever) -> Iterator[None]:
    files, threads, temporary = left_behind()
    yield
    files_after, threads_after, temporary_after = left_behind()
    assert files_after <= files
    assert threads_after <= threads
    ours = {name for name in temporary_after - temporary if "ildsdk" in name or "dcm" in name}
    assert not ours


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sources in the order in which they are read."""
    sources: list[str] = []
    whole = study_encoding.read_slice

    def read_slice(header: study_encoding.SliceHeader) -> CtSlice:
        sources.append(header.source)
        return whole(header)

    monkeypatch.setattr(study_encoding, "read_slice", read_slice)
    return sources


def test_first_answers_come_before_the_last_slice_is_read(
    world: Path, retriever: Retriever, reads: list[str]
) -> None:
    items = retriever.iter_query(world / "long", EVERY_SLICE)
    assert reads == []
    for n_taken in range(1, 6):
        assert isinstance(next(items), SliceAnswer)
        assert len(reads) <= n_taken + 2 * N_THREADS < N_SLICES
    items.close()
    time.sleep(0.05)
    assert len(reads) <= 5 + 2 * N_THREADS


def test_order_and_content_are_those_of_query(world: Path, retriever: Retriever) -> None:
    items = list(retriever.iter_query(world / "two", EVERY_SLICE))
    result = retriever.query(world / "two", EVERY_SLICE)
    kinds = [kind for kind, _ in itertools.groupby(type(item) for item in items)]
    assert kinds == [SkippedItem, SliceAnswer, StudyAnswer, SliceAnswer, StudyAnswer]
    assert isinstance(items[0], SkippedItem)
    assert items[0].source == "notes.txt"
    studies = [item for item in items if isinstance(item, StudyAnswer)]
    slices = [item for item in items if isinstance(item, SliceAnswer)]
    assert [answer for study in studies for answer in study.slices] == slices
    for study, expected in zip(studies, result.studies, strict=True):
        positions = [answer.position_mm for answer in study.slices]
        assert positions == sorted(positions)  # type: ignore[type-var]
        assert without_times(study) == without_times(expected)
    assert result.skipped == (items[0],)
    assert set(result.timings_ms) == {"discover", "total"}


def without_times(study: StudyAnswer) -> StudyAnswer:
    slices = tuple(dataclasses.replace(answer, timings_ms={}) for answer in study.slices)
    return dataclasses.replace(study, slices=slices)


def test_an_unusable_slice_stands_at_its_place(
    world: Path, retriever: Retriever, tmp_path: Path
) -> None:
    study = shutil.copytree(world / "long", tmp_path / "study")
    victim = study / "0003.dcm"
    victim.write_bytes(victim.read_bytes()[:-100_000])
    items = list(retriever.iter_query(study, EVERY_SLICE))
    sources = [getattr(item, "source", None) for item in items]
    assert isinstance(items[sources.index("0003.dcm")], SkippedItem)
    answer = items[-1]
    assert isinstance(answer, StudyAnswer)
    assert [item.source for item in answer.skipped] == ["0003.dcm"]
    assert len(answer.slices) == N_SLICES - 1


def test_nothing_usable_comes_out_at_the_end(
    world: Path, retriever: Retriever, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("not DICOM")
    items = retriever.iter_query(tmp_path)
    assert isinstance(next(items), SkippedItem)
    with pytest.raises(NoUsableSliceError):
        next(items)


def test_results_without_pictures_hold_no_pixels(world: Path, retriever: Retriever) -> None:
    def arrays(value: object) -> Iterator[np.ndarray]:
        if isinstance(value, np.ndarray):
            yield value
        elif dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from arrays(getattr(value, field.name))
        elif isinstance(value, (tuple, list)):
            for entry in value:
                yield from arrays(entry)
        elif isinstance(value, dict):
            for entry in value.values():
                yield from arrays(entry)

    assert list(arrays(retriever.query(world / "long"))) == []
    assert list(arrays(retriever.query(world / "long", with_pictures=True)))


@pytest.mark.parametrize("form", ["long", "long.zip"])
@pytest.mark.parametrize("n_before", [0, 1, 7])
@pytest.mark.usefixtures("nothing_is_left")
class TestEarlyEnd:
    def test_closed(self, world: Path, retriever: Retriever, form: str, n_before: int) -> None:
        items = retriever.iter_query(world / form, EVERY_SLICE)
        for _ in range(n_before):
            next(items)
        items.close()
        assert stream_threads() == []

    def test_dropped(self, world: Path, retriever: Retriever, form: str, n_before: int) -> None:
        items = retriever.iter_query(world / form, EVERY_SLICE)
        for _ in range(n_before):
            next(items)
        del items
        assert stream_threads() == []

    def test_cancelled_by_an_event(
        self, world: Path, retriever: Retriever, form: str, n_before: int
    ) -> None:
        event = threading.Event()
        items = retriever.iter_query(world / form, EVERY_SLICE, cancel=event)
        for _ in range(n_before):
            next(items)
        event.set()
        place = "before the first slice" if n_before < 1 else f"after {n_before} of {N_SLICES} sl"
        with pytest.raises(QueryCancelledError, match=place):
            next(items)
        assert stream_threads() == []
        with pytest.raises(StopIteration):
            next(items)

    def test_an_error_of_the_consumer(
        self, world: Path, retriever: Retriever, form: str, n_before: int
    ) -> None:
        def consume() -> None:
            for number, _ in enumerate(retriever.iter_query(world / form, EVERY_SLICE)):
                if number == n_before:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            consume()


@pytest.mark.usefixtures("nothing_is_left")
class TestStopping:
    def test_cancel_in_the_middle_of_query(self, world: Path, retriever: Retriever) -> None:
        n_done = []
        with pytest.raises(QueryCancelledError, match=r"after [5-9] of 24 slices"):
            retriever.query(
                world / "long",
                EVERY_SLICE,
                progress=lambda done, total: n_done.append(done),
                cancel=lambda: len(n_done) >= 5,
            )
        assert len(n_done) < N_SLICES

    def test_cancel_while_headers_are_read(self, world: Path, retriever: Retriever) -> None:
        calls = itertools.count()
        items = retriever.iter_query(world / "long", cancel=lambda: next(calls) == 10)
        with pytest.raises(QueryCancelledError, match="before the first slice"):
            next(items)
        assert next(calls) == 11

    def test_time_limit(self, world: Path, retriever: Retriever) -> None:
        slow: Callable[[int, int], None] = lambda done, total: time.sleep(0.05)  # noqa: E731
        started = time.perf_counter()
        with pytest.raises(QueryTimeoutError, match=r"time limit of 0\.3 s"):
            retriever.query(world / "long", EVERY_SLICE, progress=slow, timeout_s=0.3)
        assert time.perf_counter() - started < 0.3 + 1

    def test_time_of_the_consumer_counts(self, world: Path, retriever: Retriever) -> None:
        items = retriever.iter_query(world / "long", EVERY_SLICE, timeout_s=60)
        next(items)
        items.close()
        items = retriever.iter_query(world / "long", EVERY_SLICE, timeout_s=0.2)
        time.sleep(0.2)
        with pytest.raises(QueryTimeoutError, match="before the first slice"):
            next(items)

    def test_wrong_wishes_are_refused_at_the_call(self, world: Path, retriever: Retriever) -> None:
        with pytest.raises(ConfigError, match="timeout_s is 0"):
            retriever.iter_query(world / "long", timeout_s=0)
        with pytest.raises(TypeError):
            retriever.iter_query(world / "long", cancel="yes")  # type: ignore[arg-type]

    def test_the_retriever_goes_on_afterwards(self, world: Path, retriever: Retriever) -> None:
        expected = retriever.query(world / "two").studies[0].cases
        with pytest.raises(QueryCancelledError):
            retriever.query(world / "long", cancel=lambda: True)
        assert retriever.query(world / "two").studies[0].cases == expected


class TestCommandLine:
    def run(
        self, world: Path, capsys: pytest.CaptureFixture[str], *options: str
    ) -> tuple[int, str, str]:
        arguments = ["query", "long", "--every-mm", "0", "--format", "json", "--provider", "cpu"]
        arguments += ["--bundle", "bundle", "--index", "index", *options]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(world)
            with pytest.raises(SystemExit) as stop:
                cli.main(arguments)
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    def test_time_limit_has_its_exit_status(
        self, world: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, out, err = self.run(world, capsys, "--timeout", "0.05")
        assert status == 6
        assert out == ""
        assert "error (timeout): the time limit of 0.05 s was reached" in err

    def test_no_time_is_a_wrong_option(
        self, world: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, _, err = self.run(world, capsys, "--timeout", "0")
        assert status == 2
        assert "--timeout" in err

    def test_interrupt_is_clean(
        self,
        world: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        whole = study_encoding.read_slice
        calls = itertools.count()

        def read_slice(header: study_encoding.SliceHeader) -> CtSlice:
            if next(calls) == 3:
                _thread.interrupt_main()  # as Ctrl-C does
            return whole(header)

        monkeypatch.setattr(study_encoding, "read_slice", read_slice)
        before = left_behind()
        # Ignored in jobs that a shell starts in the background.
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            status, out, err = self.run(world, capsys)
        finally:
            signal.signal(signal.SIGINT, handler)
        assert status == 130
        assert out == ""
        assert "interrupted" in err
        assert stream_threads() == []
        assert left_behind()[0] <= before[0]
        assert next(calls) < N_SLICES
