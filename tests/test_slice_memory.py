"""Repeated slices are recognized by content, and never taken for another one."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ildsdk import QuerySettings, Retriever
from ildsdk.bundle import Bundle
from ildsdk.encoder import EncodedSlice, Encoder
from ildsdk.errors import ConfigError, ModelError, QueryCancelledError, SliceUnusableError
from ildsdk.ingest import build_index, read_cases_csv
from ildsdk.records import CtSlice
from ildsdk.settings import RuntimeSettings
from ildsdk.slice_memory import SliceMemory, content_key
from tests.archive_factory import write_query_study, write_small_archive
from tests.bundle_factory import write_tiny_bundle
from tests.test_pipeline import phantom_slice

CPU = RuntimeSettings(provider="cpu", n_threads=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def ct_slice() -> CtSlice:
    return phantom_slice()


class CountingEncoder(Encoder):
    """Counts what it really computes; may wait or fail on the way."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, CPU)
        self.n_computed = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.failures: list[Exception] = []  # of the next calls

    def encode(self, ct_slice: CtSlice, **options: object) -> EncodedSlice:
        failure = self.failures.pop() if self.failures else None
        self.n_computed += 1
        self.go_on.wait(10)
        if failure is not None:
            raise failure
        return super().encode(ct_slice, **options)  # type: ignore[arg-type]


@pytest.fixture
def encoder(bundle: Bundle) -> CountingEncoder:
    return CountingEncoder(bundle)


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("waited for 5 s")


def renamed(ct_slice: CtSlice) -> CtSlice:
    """The same picture in another place of another study."""
    return dataclasses.replace(
        ct_slice,
        pixels_hu=ct_slice.pixels_hu.copy(),
        position_mm=99.0,
        source="other.dcm",
        study_instance_uid="9.9",
        sop_instance_uid="9.9.9",
    )


def test_repeated_content_is_not_computed_twice(
    encoder: CountingEncoder, ct_slice: CtSlice
) -> None:
    memory = SliceMemory(encoder)
    first = memory.encode(ct_slice)
    again = memory.encode(renamed(ct_slice))
    assert encoder.n_computed == 1
    np.testing.assert_array_equal(first.embedding, again.embedding)
    np.testing.assert_array_equal(first.features, again.features)
    assert first.lung_area_mm2 == again.lung_area_mm2
    assert again.ct_slice.sop_instance_uid == "9.9.9"
    assert again.ct_slice.position_mm == 99.0
    assert set(again.timings_ms) == {"reused"}
    assert "recognize" in first.timings_ms
    assert "reused" not in first.timings_ms
    assert again.lung is None


def test_any_difference_is_another_slice(ct_slice: CtSlice) -> None:
    pixels = ct_slice.pixels_hu.copy()
    pixels[100, 100] = np.nextafter(pixels[100, 100], np.float32(np.inf))
    row_mm, column_mm = ct_slice.pixel_spacing_mm
    others = [
        dataclasses.replace(ct_slice, pixels_hu=pixels),
        dataclasses.replace(ct_slice, pixels_hu=np.ascontiguousarray(ct_slice.pixels_hu.T)),
        dataclasses.replace(ct_slice, pixels_hu=ct_slice.pixels_hu.reshape(96, -1)),
        dataclasses.replace(ct_slice, pixel_spacing_mm=(row_mm, np.nextafter(column_mm, 1))),
        dataclasses.replace(ct_slice, pixel_spacing_mm=(np.nextafter(row_mm, 1), column_mm)),
    ]
    keys = {content_key(one) for one in [ct_slice, *others]}
    assert len(keys) == 6
    assert content_key(renamed(ct_slice)) == content_key(ct_slice)


def test_the_mask_is_made_anew_where_it_is_needed(
    encoder: CountingEncoder, ct_slice: CtSlice
) -> None:
    memory = SliceMemory(encoder)
    first = memory.encode(ct_slice)
    again = memory.encode(ct_slice, needs_mask=True)
    assert encoder.n_computed == 1
    assert first.lung is not None
    assert again.lung is not None
    np.testing.assert_array_equal(first.lung.lung_mask, again.lung.lung_mask)
    assert set(again.timings_ms) == {"reused", "mask"}


def test_writing_into_a_result_does_not_reach_the_memory(
    encoder: CountingEncoder, ct_slice: CtSlice
) -> None:
    memory = SliceMemory(encoder)
    results = [memory.encode(ct_slice) for _ in range(2)]
    expected = results[0].embedding.copy()
    for result in results:
        result.embedding[:] = 0
        result.features[:] = 0
    third = memory.encode(ct_slice)
    np.testing.assert_array_equal(third.embedding, expected)
    assert third.features.any()


def test_the_least_recently_used_is_forgotten(encoder: CountingEncoder, ct_slice: CtSlice) -> None:
    memory = SliceMemory(encoder, max_slices=2)
    a, b, c = (
        dataclasses.replace(ct_slice, pixels_hu=ct_slice.pixels_hu + np.float32(shift))
        for shift in range(3)
    )
    for one in (a, b, a, c, a):  # c takes the place of b
        memory.encode(one)
    assert encoder.n_computed == 3
    assert len(memory) == 2
    memory.encode(b)
    assert encoder.n_computed == 4


def test_a_memory_of_nothing_recognizes_nothing(
    encoder: CountingEncoder, ct_slice: CtSlice
) -> None:
    memory = SliceMemory(encoder, max_slices=0)
    for _ in range(2):
        assert "recognize" not in memory.encode(ct_slice).timings_ms
    assert encoder.n_computed == 2
    assert len(memory) == 0
    with pytest.raises(ConfigError, match="remembered_slices is -1"):
        SliceMemory(encoder, max_slices=-1)


def test_refusals_are_remembered(encoder: CountingEncoder, ct_slice: CtSlice) -> None:
    memory = SliceMemory(encoder)
    rows, columns = np.mgrid[-96:96, -96:96]
    no_lung = dataclasses.replace(
        ct_slice,
        pixels_hu=np.where(rows**2 + columns**2 < 75**2, 40, -1000).astype(np.float32),
        pixel_spacing_mm=(1.6, 1.6),
    )
    found = []
    for _ in range(2):
        with pytest.raises(SliceUnusableError) as caught:
            memory.encode(no_lung)
        found.append((caught.value.reason, caught.value.detail))
    assert encoder.n_computed == 1
    assert found[0] == found[1]


def test_a_slice_in_hand_is_waited_for(encoder: CountingEncoder, ct_slice: CtSlice) -> None:
    memory = SliceMemory(encoder)
    encoder.go_on.clear()
    results: list[EncodedSlice] = []
    threads = [
        threading.Thread(target=lambda: results.append(memory.encode(ct_slice))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    encoder.go_on.set()
    for thread in threads:
        thread.join(10)
    assert encoder.n_computed == 1
    assert len(results) == 4
    assert sum("reused" in result.timings_ms for result in results) == 3


@pytest.mark.parametrize("error", [ModelError("made up"), QueryCancelledError("made up")])
def test_failures_are_not_remembered_and_who_waits_computes(
    encoder: CountingEncoder, ct_slice: CtSlice, error: Exception
) -> None:
    memory = SliceMemory(encoder)
    encoder.failures = [error]
    encoder.go_on.clear()
    caught: list[Exception] = []
    results: list[EncodedSlice] = []
    is_waiting = threading.Event()

    def first() -> None:
        try:
            memory.encode(ct_slice)
        except Exception as failure:
            caught.append(failure)

    def second() -> None:
        results.append(memory.encode(ct_slice, check=is_waiting.set))

    one, other = threading.Thread(target=first), threading.Thread(target=second)
    one.start()
    wait_until(lambda: encoder.n_computed == 1)
    other.start()
    assert is_waiting.wait(10)
    encoder.go_on.set()
    one.join(10)
    other.join(10)
    assert caught == [error]
    assert encoder.n_computed == 2
    assert "reused" not in results[0].timings_ms
    assert "reused" in memory.encode(ct_slice).timings_ms


def test_who_waits_can_be_told_to_stop(encoder: CountingEncoder, ct_slice: CtSlice) -> None:
    memory = SliceMemory(encoder)
    encoder.go_on.clear()
    one = threading.Thread(target=memory.encode, args=(ct_slice,))
    one.start()
    wait_until(lambda: encoder.n_computed == 1)

    def check() -> None:
        raise QueryCancelledError("made up")

    with pytest.raises(QueryCancelledError):
        memory.encode(ct_slice, check=check)
    encoder.go_on.set()
    one.join(10)
    assert "reused" in memory.encode(ct_slice).timings_ms


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    table = write_small_archive(folder / "archive", ("IPF-ILD", "Normal"), 2)
    for name, seed in (("one", 0), ("two", 5)):
        bundle = write_tiny_bundle(folder / name, seed=seed)
        build_index(folder / f"{name}-index", read_cases_csv(table), bundle, settings=CPU)
    write_query_study(folder / "study")
    return folder


class TestRetriever:
    def test_within_a_query_answers_keep_their_own_place(self, world: Path, tmp_path: Path) -> None:
        paths = sorted(shutil.copytree(world / "study", tmp_path / "study").iterdir())
        kept = pydicom.dcmread(paths[1])
        for path in paths[2:]:
            dataset = pydicom.dcmread(path)
            dataset.PixelData = kept.PixelData
            dataset.save_as(path)
        with Retriever.open(world / "one", world / "one-index", provider="cpu") as retriever:
            (study,) = retriever.query(tmp_path / "study", QuerySettings(every_mm=0)).studies
            embedded = retriever.embed(tmp_path / "study", QuerySettings(every_mm=0)).slices
        assert len(study.slices) == 4
        assert len({answer.sop_instance_uid for answer in study.slices}) == 4
        assert len({answer.position_mm for answer in study.slices}) == 4
        assert sum("reused" in answer.timings_ms for answer in study.slices) == 2
        same = study.slices[1:]
        assert len({answer.neighbors for answer in same}) == 1
        assert len({entry.sop_instance_uid for entry in embedded}) == 4

    def test_across_queries_the_answer_is_the_same(self, world: Path) -> None:
        def opened(remembered_slices: int) -> Retriever:
            return Retriever.open(
                world / "one",
                world / "one-index",
                provider="cpu",
                remembered_slices=remembered_slices,
            )

        with opened(4096) as retriever, opened(0) as forgetful:
            results = [
                one.query(world / "study", QuerySettings(every_mm=0)).studies[0]
                for one in (retriever, retriever, forgetful)
            ]
            pictures = retriever.query(world / "study", with_pictures=True).studies[0]
        for study, is_reused in zip(results, (False, True, False), strict=True):
            assert all(("reused" in one.timings_ms) == is_reused for one in study.slices)
            assert study.cases == results[0].cases
            assert [one.neighbors for one in study.slices] == [
                one.neighbors for one in results[0].slices
            ]
        assert all(one.pictures is not None for one in pictures.slices)
        assert all("reused" in one.timings_ms for one in pictures.slices)

    def test_retrievers_do_not_share(self, world: Path) -> None:
        embeddings = []
        for name in ("one", "two", "one"):
            with Retriever.open(world / name, world / f"{name}-index", provider="cpu") as one:
                embeddings.append(one.embed(world / "study").slices[0].embedding)
        np.testing.assert_array_equal(embeddings[0], embeddings[2])
        assert np.abs(embeddings[0] - embeddings[1]).max() > 0.01
