"""The thin front: wires study intake, encoder, index and answers, and times them."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ildsdk import defaults
from ildsdk._version import __version__
from ildsdk.answers import find_neighbors, is_no_similar_case, label_statistics, ranked_cases
from ildsdk.array_input import slice_from_array
from ildsdk.bundle import Bundle
from ildsdk.dicom import Study, discover
from ildsdk.encoder import EncodedSlice, Encoder
from ildsdk.errors import NoUsableSliceError
from ildsdk.explain import PairMaps
from ildsdk.index import Index
from ildsdk.kernel_loading import loading_kernels
from ildsdk.notice import notice
from ildsdk.pair_maps import pair_maps
from ildsdk.records import (
    EmbedResult,
    Neighbor,
    Provenance,
    QueryResult,
    SkippedItem,
    SliceAnswer,
    SlicePictures,
    StudyAnswer,
)
from ildsdk.settings import (
    Precision,
    Provider,
    QuerySettings,
    RadiomicsEngine,
    RuntimeSettings,
)
from ildsdk.study_encoding import Progress, SliceCounter, embed_study, iter_study


class Retriever:
    """Finds the most similar slices and cases of an index for a chest CT.

    Open with :meth:`open`; use as a context manager or :meth:`close`. Holds nothing that
    changes after opening, so one retriever serves many threads.

    Examples
    --------
    >>> with Retriever.open(index="archive.ildindex") as retriever:  # doctest: +SKIP
    ...     result = retriever.query("study/")
    ...     print(result.studies[0].cases[0].label)
    """

    def __init__(self, bundle: Bundle, index: Index, encoder: Encoder) -> None:
        self.bundle = bundle
        self.index = index
        self._encoder = encoder

    @classmethod
    def open(
        cls,
        bundle: str | Path | None = None,
        index: str | Path | None = None,
        *,
        provider: Provider = "auto",
        precision: Precision = "auto",
        n_threads: int | None = None,
        device_id: int = 0,
        model_cache: Path | None = None,
        radiomics_engine: RadiomicsEngine = "fast",
    ) -> Retriever:
        """Open a bundle and an index that was built with it, and load all that a query runs.

        Parameters
        ----------
        bundle, index : path or None
            None takes the embedded default. Both are made from phantom CT: good to try
            the software with, never for a real question.
        provider, precision, n_threads, device_id, model_cache, radiomics_engine
            See :class:`ildsdk.settings.RuntimeSettings`.

        Raises
        ------
        ConfigError
            A setting is out of range.
        ModelError
            The bundle is refused, or the execution provider cannot run.
        IndexFileError
            The index is refused, or was built with another bundle.
        """
        settings = RuntimeSettings(
            provider=provider,
            precision=precision,
            n_threads=n_threads,
            device_id=device_id,
            model_cache=model_cache,
            radiomics_engine=radiomics_engine,
        )
        with loading_kernels(settings.radiomics_engine):
            opened_bundle = Bundle.open(bundle if bundle is not None else defaults.bundle_path())
            opened_index = Index.open(
                index if index is not None else defaults.index_path(),
                expected_bundle_hash=opened_bundle.bundle_hash,
            )
            try:
                return cls(opened_bundle, opened_index, Encoder(opened_bundle, settings))
            except BaseException:
                opened_index.close()
                raise

    @property
    def provider(self) -> str:
        """The execution provider that really runs."""
        return self._encoder.provider

    @property
    def precision(self) -> str:
        """Arithmetic of the backbone that really runs: ``"fp32"``, ``"int8"`` or ``"fp16"``."""
        return self._encoder.precision

    def query(
        self,
        study: str | Path,
        settings: QuerySettings | None = None,
        *,
        with_pictures: bool = False,
        with_maps: bool = False,
        progress: Progress | None = None,
    ) -> QueryResult:
        """Answer every study found under a path.

        Parameters
        ----------
        study : path
            Folder (nested, any file names), one DICOM file, or a zip.
        settings : QuerySettings or None
            Top-n, sampling, series, search mode.
        with_pictures : bool
            Keep a small picture and the mask outline of each answered slice, for reports.
        with_maps : bool
            Also make activation maps: where in each query slice and its first neighbors their
            similarity comes from (``SliceAnswer.maps``). The answer is the same.
        progress : callable or None
            Called with (slices done, slices in all).

        Returns
        -------
        QueryResult
            One :class:`~ildsdk.records.StudyAnswer` per study with at least one usable
            slice; every file that was not used is listed with its reason.

        Raises
        ------
        NoUsableSliceError
            Nothing under the path could be answered; the reasons are in the error.
        ConfigError
            Maps are asked for and the bundle has none.
        InputError, ModelError, IndexFileError
            See :mod:`ildsdk.errors`.
        """
        settings = settings or QuerySettings()
        if with_maps:
            self._encoder.check_explain()
        started = time.perf_counter()
        discovery = discover(study, series_uid=settings.series_uid, every_mm=settings.every_mm)
        discovered = time.perf_counter()
        answers: list[StudyAnswer] = []
        skipped = list(discovery.skipped)
        counter = SliceCounter(discovery, progress)
        for found in discovery.studies:
            answer = self._answer_study(found, settings, with_pictures, with_maps, counter)
            if answer.slices:
                answers.append(answer)
            else:
                skipped.extend(answer.skipped)
        if not answers:
            raise NoUsableSliceError(tuple(skipped))
        return QueryResult(
            provenance=self._provenance(settings),
            studies=tuple(answers),
            skipped=tuple(skipped),
            timings_ms={
                "discover": round((discovered - started) * 1e3, 3),
                "total": round((time.perf_counter() - started) * 1e3, 3),
            },
        )

    def empty_result(
        self, settings: QuerySettings, skipped: tuple[SkippedItem, ...]
    ) -> QueryResult:
        """Result without an answer, for programs that want the reasons as a record.

        Parameters
        ----------
        skipped : tuple of SkippedItem
            As in :class:`~ildsdk.errors.NoUsableSliceError`.
        """
        return QueryResult(
            provenance=self._provenance(settings), studies=(), skipped=skipped, timings_ms={}
        )

    def embed(
        self,
        study: str | Path,
        settings: QuerySettings | None = None,
        *,
        progress: Progress | None = None,
    ) -> EmbedResult:
        """Embed the slices that :meth:`query` would search for.

        Raises
        ------
        NoUsableSliceError
            Nothing under the path could be embedded.
        """
        return embed_study(study, self._encoder, settings or QuerySettings(), progress)

    def embed_slice(
        self,
        pixels_hu: npt.ArrayLike,
        pixel_spacing_mm: tuple[float, float],
    ) -> npt.NDArray[np.float32]:
        """Embed one axial slice held in memory.

        Parameters
        ----------
        pixels_hu : array_like
            ``(n_rows, n_columns)`` Hounsfield units, finite; padding counts as air, a constant
            frame is cropped, as for DICOM.
        pixel_spacing_mm : tuple of float
            ``(row_spacing, column_spacing)``, mm.

        Returns
        -------
        ndarray
            float32 ``(d,)``, unit norm.

        Raises
        ------
        InputError
            Not a finite 2-D image, or an impossible spacing.
        SliceUnusableError
            Implausible Hounsfield units, too little lung, or degenerate features.
        """
        ct_slice = slice_from_array(pixels_hu, pixel_spacing_mm)
        return self._encoder.encode(ct_slice).embedding

    def search(
        self, embedding: npt.NDArray[np.float32], settings: QuerySettings | None = None
    ) -> tuple[Neighbor, ...]:
        """Most similar indexed slices of one embedding, best first.

        No patient is excluded: an embedding does not say whose it is.
        """
        settings = settings or QuerySettings()
        return find_neighbors(self.index, embedding, settings, None)

    def thumbnail(self, item_id: str) -> bytes | None:
        """Encoded lung-window thumbnail of an indexed slice, None for an unknown item."""
        return self.index.thumbnail_of_item(item_id)

    def close(self) -> None:
        """Close the index; the retriever cannot be used afterwards."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _answer_study(
        self,
        study: Study,
        settings: QuerySettings,
        with_pictures: bool,
        with_maps: bool,
        counter: SliceCounter,
    ) -> StudyAnswer:
        excluded = None
        if settings.exclude_same_patient:
            excluded = self.index.rows_of_patient(study.patient_hash, study.study_instance_uid)
        slices: list[SliceAnswer] = []
        embeddings: list[npt.NDArray[np.float32]] = []
        skipped = list(study.skipped)
        for outcome in iter_study(self._encoder, study, counter, with_locations=with_maps):
            if isinstance(outcome, SkippedItem):
                skipped.append(outcome)
                continue
            started = time.perf_counter()
            neighbors = find_neighbors(self.index, outcome.embedding, settings, excluded)
            timings_ms = {**outcome.timings_ms, "search": _ms_since(started)}
            no_similar_case = is_no_similar_case(neighbors, self.index.no_match_threshold)
            maps: tuple[PairMaps, ...] = ()
            if with_maps:
                started = time.perf_counter()
                maps = self._maps(outcome, neighbors)
                timings_ms["maps"] = _ms_since(started)
            embeddings.append(outcome.embedding)
            slices.append(
                SliceAnswer(
                    source=outcome.ct_slice.source,
                    sop_instance_uid=outcome.ct_slice.sop_instance_uid,
                    frame=outcome.ct_slice.frame,
                    position_mm=outcome.ct_slice.position_mm,
                    lung_area_mm2=round(outcome.lung.area_mm2, 1),
                    neighbors=neighbors,
                    no_similar_case=no_similar_case,
                    timings_ms=timings_ms,
                    pictures=self._pictures(outcome) if with_pictures else None,
                    maps=maps,
                )
            )
        cases = ranked_cases(
            self.index,
            embeddings,
            [answer.neighbors for answer in slices],
            settings.top_n,
            excluded,
        )
        no_similar_case = all(answer.no_similar_case for answer in slices)
        return StudyAnswer(
            study_instance_uid=study.study_instance_uid,
            series=study.series,
            slices=tuple(slices),
            cases=cases,
            labels=label_statistics(
                [answer.neighbors for answer in slices], self.index.prevalence(excluded)
            ),
            no_similar_case=no_similar_case,
            suggested_label=None if no_similar_case or not cases else cases[0].label,
            n_excluded_items=0 if excluded is None else int(excluded.sum()),
            skipped=tuple(skipped),
        )

    def _maps(self, encoded: EncodedSlice, neighbors: tuple[Neighbor, ...]) -> tuple[PairMaps, ...]:
        sha256 = self.bundle.explain_sha256
        assert sha256 is not None  # or check_explain refused
        return pair_maps(encoded, neighbors, self.index, sha256)

    def _pictures(self, encoded: EncodedSlice) -> SlicePictures:
        from ildsdk.reports.thumbnail import render_slice_pictures

        return render_slice_pictures(
            encoded.ct_slice.pixels_hu,
            encoded.lung.lung_mask,
            encoded.ct_slice.pixel_spacing_mm,
            self.bundle.method.window_center_hu,
            self.bundle.method.window_width_hu,
        )

    def _provenance(self, settings: QuerySettings) -> Provenance:
        info = self.index.info()
        return Provenance(
            ildsdk_version=__version__,
            bundle_name=self.bundle.name,
            bundle_hash=self.bundle.bundle_hash,
            index_name=info.name,
            index_hash=self.index.hash,
            n_items=info.n_items,
            n_cases=info.n_cases,
            provider=self.provider,
            precision=self.precision,
            n_threads=self._encoder.n_threads,
            radiomics_engine=self._encoder.settings.radiomics_engine,
            search_mode=settings.search_mode,
            top_n=settings.top_n,
            every_mm=settings.every_mm,
            exclude_same_patient=settings.exclude_same_patient,
            no_match_threshold=self.index.no_match_threshold,
            is_synthetic=info.is_synthetic,
            model_is_synthetic=self.bundle.is_synthetic,
            notice=notice(
                model_is_synthetic=self.bundle.is_synthetic, cases_are_synthetic=info.is_synthetic
            ),
        )


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1e3, 3)
