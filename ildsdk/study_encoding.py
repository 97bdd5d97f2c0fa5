"""From a discovered study to its embedded slices; unusable ones come out with their reason."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from ildsdk.dicom import Discovery, SliceHeader, Study, discover, load_decoders, read_slice
from ildsdk.encoder import EncodedSlice, Encoder
from ildsdk.errors import InputError, NoUsableSliceError, SliceUnusableError
from ildsdk.notice import notice
from ildsdk.ordered_work import ordered_work
from ildsdk.records import CtSlice, EmbeddedSlice, EmbedResult, SkippedItem
from ildsdk.settings import QuerySettings
from ildsdk.slice_memory import SliceMemory
from ildsdk.stopping import StopCheck, StopSignal

ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)
Progress = Callable[[int, int], None]


class SliceCounter:
    """Counts slices over all studies of a discovery and tells a callback (done, total)."""

    def __init__(self, discovery: Discovery, progress: Progress | None) -> None:
        self.total = sum(len(study.slices) for study in discovery.studies)
        self.done = 0
        self._progress = progress

    def advance(self) -> None:
        """One more slice is done."""
        self.done += 1
        if self._progress is not None:
            self._progress(self.done, self.total)


class SliceWork(Protocol[ResultT_co]):
    """What is done with one decoded slice, on a thread of the stream."""

    def __call__(
        self, ct_slice: CtSlice, decode_ms: float, *, n_at_once: int, check: StopCheck
    ) -> ResultT_co:
        """Give the slice's result, or raise SliceUnusableError."""
        ...


def iter_slices(
    study: Study,
    work: SliceWork[ResultT],
    *,
    n_threads: int,
    stop: StopSignal,
    counter: SliceCounter | None = None,
) -> Generator[ResultT | SkippedItem, None, None]:
    """Decode the slices of one study and do ``work`` on each, many at once, results in order.

    Parameters
    ----------
    n_threads : int
        Slices worked on at once. Twice as many are under way or wait to be taken, so memory does
        not grow with the study.
    stop : StopSignal
        Ends the stream.

    Yields
    ------
    What ``work`` returns, or SkippedItem
        One per slice of ``study.slices``; a damaged file skips its slice, not the study.
    """
    n_at_once = min(n_threads, len(study.slices))

    def decode_and_work(header: SliceHeader, check: StopCheck) -> ResultT | SkippedItem:
        started = time.perf_counter()
        try:
            ct_slice = _read_or_unusable(header)
            decode_ms = round((time.perf_counter() - started) * 1e3, 3)
            check()
            return work(ct_slice, decode_ms, n_at_once=n_at_once, check=check)
        except SliceUnusableError as error:
            return _skipped(header, error)

    load_decoders(study.slices)
    outcomes = ordered_work(
        decode_and_work, study.slices, n_threads=n_at_once, n_ahead=2 * n_at_once, stop=stop
    )
    try:
        for _, outcome in outcomes:
            if counter is not None:
                counter.advance()
                stop.progress = f"after {counter.done} of {counter.total} slices"
            yield outcome
    finally:
        outcomes.close()


def iter_study(
    encoder: Encoder, study: Study, *, with_locations: bool = False
) -> Iterator[EncodedSlice | SkippedItem]:
    """Embed the slices of one study in order.

    Parameters
    ----------
    with_locations : bool
        As in :meth:`ildsdk.encoder.Encoder.encode`.

    Yields
    ------
    EncodedSlice or SkippedItem
        One per slice of ``study.slices``.
    """

    def encode(
        ct_slice: CtSlice, decode_ms: float, *, n_at_once: int, check: StopCheck
    ) -> EncodedSlice:
        encoded = encoder.encode(
            ct_slice, with_locations=with_locations, n_at_once=n_at_once, check=check
        )
        timings_ms = {"decode": decode_ms, **encoded.timings_ms}
        return dataclasses.replace(encoded, timings_ms=timings_ms)

    encoder.expect(len(study.slices))
    yield from iter_slices(study, encode, n_threads=encoder.n_threads, stop=StopSignal())


def embed_study(
    path: str | Path,
    memory: SliceMemory,
    settings: QuerySettings,
    progress: Progress | None = None,
) -> EmbedResult:
    """Embed all slices that a query with these settings would search for.

    Raises
    ------
    NoUsableSliceError
        Nothing under the path can be embedded.
    """

    def embed(
        ct_slice: CtSlice, decode_ms: float, *, n_at_once: int, check: StopCheck
    ) -> EmbeddedSlice:
        return _embedded(memory.encode(ct_slice, n_at_once=n_at_once, check=check))

    encoder = memory.encoder
    stop = StopSignal()
    discovery = discover(path, series_uid=settings.series_uid, every_mm=settings.every_mm)
    counter = SliceCounter(discovery, progress)
    skipped = list(discovery.skipped)
    slices = []
    for study in discovery.studies:
        skipped.extend(study.skipped)
        encoder.expect(len(study.slices))
        for outcome in iter_slices(
            study, embed, n_threads=encoder.n_threads, stop=stop, counter=counter
        ):
            if isinstance(outcome, SkippedItem):
                skipped.append(outcome)
            else:
                slices.append(outcome)
    if not slices:
        raise NoUsableSliceError(tuple(skipped))
    return EmbedResult(
        bundle_hash=encoder.bundle.bundle_hash,
        provider=encoder.provider,
        precision=encoder.precision,
        is_synthetic=encoder.bundle.is_synthetic,
        notice=notice(model_is_synthetic=encoder.bundle.is_synthetic, cases_are_synthetic=False),
        slices=tuple(slices),
        skipped=tuple(skipped),
    )


def _embedded(encoded: EncodedSlice) -> EmbeddedSlice:
    ct_slice = encoded.ct_slice
    return EmbeddedSlice(
        source=ct_slice.source,
        study_instance_uid=ct_slice.study_instance_uid,
        series_instance_uid=ct_slice.series_instance_uid,
        sop_instance_uid=ct_slice.sop_instance_uid,
        frame=ct_slice.frame,
        position_mm=ct_slice.position_mm,
        embedding=encoded.embedding,
    )


def _skipped(header: SliceHeader, error: SliceUnusableError) -> SkippedItem:
    return SkippedItem(
        level="slice",
        source=header.source,
        reason=error.reason,
        detail=error.detail.removeprefix(f"{header.source}: "),
        series_instance_uid=header.series_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
    )


def _read_or_unusable(header: SliceHeader) -> CtSlice:
    try:
        return read_slice(header)
    except SliceUnusableError:
        raise
    except InputError as error:
        raise SliceUnusableError(error.code, str(error)) from error
