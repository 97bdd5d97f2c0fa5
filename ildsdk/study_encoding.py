"""From a discovered study to its embedded slices; unusable ones come out with their reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ildsdk.dicom import Discovery, SliceHeader, Study, discover, read_slice
from ildsdk.encoder import EncodedSlice, Encoder
from ildsdk.errors import InputError, NoUsableSliceError, SliceUnusableError
from ildsdk.notice import notice
from ildsdk.records import CtSlice, EmbeddedSlice, EmbedResult, SkippedItem
from ildsdk.settings import QuerySettings

Progress = Callable[[int, int], None]


class SliceCounter:
    """Counts slices over all studies of a discovery and tells a callback (done, total)."""

    def __init__(self, discovery: Discovery, progress: Progress | None) -> None:
        self._total = sum(len(study.slices) for study in discovery.studies)
        self._done = 0
        self._progress = progress

    def advance(self) -> None:
        """One more slice is done."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


def iter_study(
    encoder: Encoder,
    study: Study,
    counter: SliceCounter | None = None,
    *,
    with_locations: bool = False,
) -> Iterator[EncodedSlice | SkippedItem]:
    """Embed the slices of one study in order.

    Parameters
    ----------
    with_locations : bool
        As in :meth:`ildsdk.encoder.Encoder.encode`.

    Yields
    ------
    EncodedSlice or SkippedItem
        One per slice of ``study.slices``; a damaged file skips its slice, not the study.
    """
    outcomes = encoder.iter_encode(study.slices, _read_or_unusable, with_locations=with_locations)
    for header, outcome in outcomes:
        if counter is not None:
            counter.advance()
        if isinstance(outcome, SliceUnusableError):
            yield SkippedItem(
                level="slice",
                source=header.source,
                reason=outcome.reason,
                detail=outcome.detail.removeprefix(f"{header.source}: "),
                series_instance_uid=header.series_instance_uid,
                sop_instance_uid=header.sop_instance_uid,
            )
        else:
            yield outcome


def embed_study(
    path: str | Path,
    encoder: Encoder,
    settings: QuerySettings,
    progress: Progress | None = None,
) -> EmbedResult:
    """Embed all slices that a query with these settings would search for.

    Raises
    ------
    NoUsableSliceError
        Nothing under the path can be embedded.
    """
    discovery = discover(path, series_uid=settings.series_uid, every_mm=settings.every_mm)
    counter = SliceCounter(discovery, progress)
    skipped = list(discovery.skipped)
    slices = []
    for study in discovery.studies:
        skipped.extend(study.skipped)
        for outcome in iter_study(encoder, study, counter):
            if isinstance(outcome, SkippedItem):
                skipped.append(outcome)
            else:
                slices.append(_embedded(outcome))
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


def _read_or_unusable(header: SliceHeader) -> CtSlice:
    try:
        return read_slice(header)
    except SliceUnusableError:
        raise
    except InputError as error:
        raise SliceUnusableError(error.code, str(error)) from error
