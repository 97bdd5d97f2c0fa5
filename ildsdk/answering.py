"""One query under way: slices and studies are answered as they come to be known."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ildsdk.answers import find_neighbors, is_no_similar_case, label_statistics, ranked_cases
from ildsdk.bundle import Bundle
from ildsdk.dicom import Study, discover
from ildsdk.encoder import EncodedSlice
from ildsdk.errors import NoUsableSliceError
from ildsdk.explain import PairMaps
from ildsdk.index import Index
from ildsdk.pair_maps import pair_maps
from ildsdk.records import (
    CtSlice,
    Neighbor,
    SkippedItem,
    SliceAnswer,
    SlicePictures,
    StudyAnswer,
)
from ildsdk.settings import QuerySettings
from ildsdk.slice_memory import SliceMemory
from ildsdk.stopping import StopCheck, StopSignal
from ildsdk.study_encoding import Progress, SliceCounter, iter_slices

QueryItem: TypeAlias = SliceAnswer | SkippedItem | StudyAnswer


class _Answered(NamedTuple):
    answer: SliceAnswer
    embedding: npt.NDArray[np.float32]


class QueryRun:
    """Answers every study under a path, once.

    Parameters
    ----------
    index, memory
        What to search, and the encoder with its memory.
    path : path
        Folder, file or zip.
    with_pictures, with_maps, progress
        As in :meth:`ildsdk.retriever.Retriever.query`.
    stop : StopSignal
        Ends it.

    Attributes
    ----------
    skipped : list of SkippedItem
        What belongs to no answered study, complete once the items are.
    timings_ms : dict
        discover, total; as far as they are over.
    """

    def __init__(
        self,
        index: Index,
        memory: SliceMemory,
        path: str | Path,
        settings: QuerySettings,
        *,
        with_pictures: bool,
        with_maps: bool,
        progress: Progress | None,
        stop: StopSignal,
    ) -> None:
        self.skipped: list[SkippedItem] = []
        self.timings_ms: dict[str, float] = {}
        self._index = index
        self._memory = memory
        self._path = path
        self._settings = settings
        self._with_pictures = with_pictures
        self._with_maps = with_maps
        self._progress = progress
        self._stop = stop

    @property
    def _bundle(self) -> Bundle:
        return self._memory.encoder.bundle

    def items(self) -> Generator[QueryItem, None, None]:
        """Go through the query; see :meth:`ildsdk.retriever.Retriever.iter_query`."""
        started = time.perf_counter()
        settings = self._settings
        discovery = discover(
            self._path,
            series_uid=settings.series_uid,
            every_mm=settings.every_mm,
            check=self._stop.check,
        )
        self.timings_ms["discover"] = _ms_since(started)
        self.skipped.extend(discovery.skipped)
        yield from discovery.skipped
        counter = SliceCounter(discovery, self._progress)
        is_answered = False
        for study in discovery.studies:
            answer = yield from self._study(study, counter)
            if answer.slices:
                is_answered = True
                self.timings_ms["total"] = _ms_since(started)
                yield answer
            else:
                self.skipped.extend(answer.skipped)
        self.timings_ms["total"] = _ms_since(started)
        if not is_answered:
            raise NoUsableSliceError(tuple(self.skipped))

    def _study(
        self, study: Study, counter: SliceCounter
    ) -> Generator[QueryItem, None, StudyAnswer]:
        excluded = None
        if self._settings.exclude_same_patient:
            excluded = self._index.rows_of_patient(study.patient_hash, study.study_instance_uid)

        def answer_slice(
            ct_slice: CtSlice, decode_ms: float, *, n_at_once: int, check: StopCheck
        ) -> _Answered:
            encoded = self._memory.encode(
                ct_slice,
                needs_mask=self._with_pictures,
                with_locations=self._with_maps,
                n_at_once=n_at_once,
                check=check,
            )
            check()
            return self._answer(encoded, decode_ms, excluded)

        slices: list[SliceAnswer] = []
        embeddings: list[npt.NDArray[np.float32]] = []
        skipped = list(study.skipped)
        yield from study.skipped
        self._memory.encoder.expect(len(study.slices))
        outcomes = iter_slices(
            study,
            answer_slice,
            n_threads=self._memory.encoder.n_threads,
            stop=self._stop,
            counter=counter,
        )
        try:
            for outcome in outcomes:
                if isinstance(outcome, SkippedItem):
                    skipped.append(outcome)
                    yield outcome
                else:
                    embeddings.append(outcome.embedding)
                    slices.append(outcome.answer)
                    yield outcome.answer
        finally:
            outcomes.close()
        self._stop.check()
        return self._study_answer(study, slices, embeddings, skipped, excluded)

    def _answer(
        self, encoded: EncodedSlice, decode_ms: float, excluded: npt.NDArray[np.bool_] | None
    ) -> _Answered:
        started = time.perf_counter()
        neighbors = find_neighbors(self._index, encoded.embedding, self._settings, excluded)
        timings_ms = {"decode": decode_ms, **encoded.timings_ms, "search": _ms_since(started)}
        maps: tuple[PairMaps, ...] = ()
        if self._with_maps:
            started = time.perf_counter()
            maps = self._maps(encoded, neighbors)
            timings_ms["maps"] = _ms_since(started)
        answer = SliceAnswer(
            source=encoded.ct_slice.source,
            sop_instance_uid=encoded.ct_slice.sop_instance_uid,
            frame=encoded.ct_slice.frame,
            position_mm=encoded.ct_slice.position_mm,
            lung_area_mm2=round(encoded.lung_area_mm2, 1),
            neighbors=neighbors,
            no_similar_case=is_no_similar_case(neighbors, self._index.no_match_threshold),
            timings_ms=timings_ms,
            pictures=self._pictures(encoded) if self._with_pictures else None,
            maps=maps,
        )
        return _Answered(answer, encoded.embedding)

    def _study_answer(
        self,
        study: Study,
        slices: list[SliceAnswer],
        embeddings: list[npt.NDArray[np.float32]],
        skipped: list[SkippedItem],
        excluded: npt.NDArray[np.bool_] | None,
    ) -> StudyAnswer:
        neighbors = [answer.neighbors for answer in slices]
        cases = ranked_cases(self._index, embeddings, neighbors, self._settings.top_n, excluded)
        no_similar_case = all(answer.no_similar_case for answer in slices)
        return StudyAnswer(
            study_instance_uid=study.study_instance_uid,
            series=study.series,
            slices=tuple(slices),
            cases=cases,
            labels=label_statistics(neighbors, self._index.prevalence(excluded)),
            no_similar_case=no_similar_case,
            suggested_label=None if no_similar_case or not cases else cases[0].label,
            n_excluded_items=0 if excluded is None else int(excluded.sum()),
            skipped=tuple(skipped),
        )

    def _maps(self, encoded: EncodedSlice, neighbors: tuple[Neighbor, ...]) -> tuple[PairMaps, ...]:
        sha256 = self._bundle.explain_sha256
        assert sha256 is not None  # or check_explain refused
        return pair_maps(encoded, neighbors, self._index, sha256)

    def _pictures(self, encoded: EncodedSlice) -> SlicePictures:
        from ildsdk.reports.thumbnail import render_slice_pictures

        assert encoded.lung is not None  # asked for with the slice
        return render_slice_pictures(
            encoded.ct_slice.pixels_hu,
            encoded.lung.lung_mask,
            encoded.ct_slice.pixel_spacing_mm,
            self._bundle.method.window_center_hu,
            self._bundle.method.window_width_hu,
        )


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1e3, 3)
