"""The thin front: wires study intake, encoder, index and answers."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ildsdk import defaults
from ildsdk.answering import QueryItem, QueryRun
from ildsdk.answers import find_neighbors
from ildsdk.array_input import slice_from_array
from ildsdk.bundle import Bundle
from ildsdk.encoder import Encoder
from ildsdk.index import Index
from ildsdk.kernel_loading import loading_kernels
from ildsdk.per_process import PerProcess
from ildsdk.provenance import provenance_of
from ildsdk.records import (
    EmbedResult,
    Neighbor,
    Provenance,
    QueryResult,
    SkippedItem,
    StudyAnswer,
)
from ildsdk.settings import Precision, Provider, QuerySettings, RadiomicsEngine, RuntimeSettings
from ildsdk.slice_memory import DEFAULT_MAX_SLICES, SliceMemory
from ildsdk.stopping import Cancel, StopSignal
from ildsdk.study_encoding import Progress, embed_study


@dataclasses.dataclass(frozen=True, slots=True)
class _Opened:
    index: Index
    memory: SliceMemory


def _reopened(parent: _Opened) -> _Opened:
    encoder = Encoder(parent.memory.encoder.bundle, parent.memory.encoder.settings)
    return _Opened(parent.index.reopened(), SliceMemory(encoder, parent.memory.max_slices))


class Retriever:
    """Finds the most similar slices and cases of an index for a chest CT.

    Open with :meth:`open`; use as a context manager or :meth:`close`. One retriever serves many
    threads; answers do not depend on what it was asked before. In a forked child it opens networks
    and index anew when first asked (docs/pipeline.md#fork).

    Examples
    --------
    >>> with Retriever.open(index="archive.ildindex") as retriever:  # doctest: +SKIP
    ...     result = retriever.query("study/")
    ...     print(result.studies[0].cases[0].label)
    """

    def __init__(
        self,
        bundle: Bundle,
        index: Index,
        encoder: Encoder,
        remembered_slices: int = DEFAULT_MAX_SLICES,
    ) -> None:
        self.bundle = bundle
        self._opened = PerProcess(
            _Opened(index, SliceMemory(encoder, remembered_slices)), _reopened
        )

    @property
    def index(self) -> Index:
        """The open index."""
        return self._opened.get().index

    @property
    def _encoder(self) -> Encoder:
        return self._opened.get().memory.encoder

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
        gpu_memory_bytes: int | None = None,
        engine_folder: Path | None = None,
        allow_engine_build: bool = False,
        remembered_slices: int = DEFAULT_MAX_SLICES,
    ) -> Retriever:
        """Open a bundle and an index that was built with it, and load all that a query runs.

        Parameters
        ----------
        bundle, index : path or None
            None takes the embedded default. Both are made from phantom CT: good to try
            the software with, never for a real question.
        provider, precision, n_threads, device_id, model_cache, radiomics_engine
            See :class:`ildsdk.settings.RuntimeSettings`.
        gpu_memory_bytes, engine_folder, allow_engine_build
            See there too; for GPUs.
        remembered_slices : int
            How many slices to remember, about 2 KB each: one that comes again, in this study or
            another, is recognized by its pixels and spacing and not computed anew. 0: none.

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
            gpu_memory_bytes=gpu_memory_bytes,
            engine_folder=engine_folder,
            allow_engine_build=allow_engine_build,
        )
        with loading_kernels(settings.radiomics_engine):
            opened_bundle = Bundle.open(bundle if bundle is not None else defaults.bundle_path())
            opened_index = Index.open(
                index if index is not None else defaults.index_path(),
                expected_bundle_hash=opened_bundle.bundle_hash,
            )
            try:
                encoder = Encoder(opened_bundle, settings)
                return cls(opened_bundle, opened_index, encoder, remembered_slices)
            except BaseException:
                opened_index.close()
                raise

    def with_index(self, index: Index) -> Retriever:
        """Give a retriever of another index with the same bundle, networks and remembered slices.

        Both stay usable, and each is closed for itself.

        Parameters
        ----------
        index : Index
            Built with the same bundle.
        """
        other = copy.copy(self)
        other._opened = PerProcess(_Opened(index, self._opened.get().memory), _reopened)
        return other

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
        cancel: Cancel | None = None,
        timeout_s: float | None = None,
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
        cancel : threading.Event, or callable that returns a bool, or None
            Ends the query once it is set (or returns True).
        timeout_s : float or None
            Ends the query after so many seconds of wall clock.

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
        QueryCancelledError, QueryTimeoutError
            The caller ended it; :meth:`iter_query` gives what was answered until then.
        InputError, ModelError, IndexFileError
            See :mod:`ildsdk.errors`.
        """
        settings = settings or QuerySettings()
        run = self._run(
            study,
            settings,
            with_pictures=with_pictures,
            with_maps=with_maps,
            progress=progress,
            stop=StopSignal(cancel, timeout_s),
        )
        answers = tuple(item for item in run.items() if isinstance(item, StudyAnswer))
        return QueryResult(
            provenance=self._provenance(settings),
            studies=answers,
            skipped=tuple(run.skipped),
            timings_ms=run.timings_ms,
        )

    def iter_query(
        self,
        study: str | Path,
        settings: QuerySettings | None = None,
        *,
        with_pictures: bool = False,
        with_maps: bool = False,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        timeout_s: float | None = None,
    ) -> Generator[QueryItem, None, None]:
        """Answer every study found under a path, slice by slice.

        Parameters are those of :meth:`query`; ``timeout_s`` counts from this call, and the time
        that the caller takes between two items counts too.

        Yields
        ------
        SkippedItem
            First the files that belong to no study; then, study by study, those of the study
            that are not answered; and any slice that turns out unusable, at its place.
        SliceAnswer
            By ascending position in the study, each as soon as it and all before it are known:
            the first ones while later slices have not been read.
        StudyAnswer
            After the slices of a study, where at least one was answered: the same slices and
            skipped items, with case ranking and class statistics.

        Raises
        ------
        NoUsableSliceError
            At the end, where nothing was answered.
        ConfigError
            At once: maps are asked for and the bundle has none, or ``timeout_s`` is no time.
        QueryCancelledError, QueryTimeoutError
            The caller ended it.
        InputError, ModelError, IndexFileError
            See :mod:`ildsdk.errors`.

        Notes
        -----
        However it ends (exhausted, by an error, closed with ``close()``, or dropped), no
        thread and no file of the query is left. Ending it waits for the stages in hand, one on each
        thread.
        """
        run = self._run(
            study,
            settings or QuerySettings(),
            with_pictures=with_pictures,
            with_maps=with_maps,
            progress=progress,
            stop=StopSignal(cancel, timeout_s),
        )
        return run.items()

    def _run(
        self,
        study: str | Path,
        settings: QuerySettings,
        *,
        with_pictures: bool,
        with_maps: bool,
        progress: Progress | None,
        stop: StopSignal,
    ) -> QueryRun:
        _check_arguments(study, settings)
        opened = self._opened.get()
        if with_maps:
            opened.memory.encoder.check_explain()
        return QueryRun(
            opened.index,
            opened.memory,
            study,
            settings,
            with_pictures=with_pictures,
            with_maps=with_maps,
            progress=progress,
            stop=stop,
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
        settings = settings or QuerySettings()
        _check_arguments(study, settings)
        opened = self._opened.get()
        opened.index.check_open()
        return embed_study(study, opened.memory, settings, progress)

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
        self.index.check_open()
        ct_slice = slice_from_array(pixels_hu, pixel_spacing_mm)
        return self._encoder.encode(ct_slice).embedding

    def search(
        self, embedding: npt.NDArray[np.float32], settings: QuerySettings | None = None
    ) -> tuple[Neighbor, ...]:
        """Most similar indexed slices of one embedding, best first.

        No patient is excluded: an embedding does not say whose it is.

        Raises
        ------
        ValueError
            The embedding is no float32 ``(d,)`` of unit norm, or the retriever is closed: slips
            of the caller, no :class:`~ildsdk.IldError`.
        """
        settings = settings or QuerySettings()
        return find_neighbors(self.index, embedding, settings, None)

    def thumbnail(self, item_id: str) -> bytes | None:
        """Encoded lung-window thumbnail of an indexed slice, None for an unknown item."""
        return self.index.thumbnail_of_item(item_id)

    def close(self) -> None:
        """Close the index; the retriever cannot be used afterwards.

        In a forked child that never asked it there is nothing to close, and nothing is opened.
        """
        opened = self._opened.opened()
        if opened is not None:
            opened.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _provenance(self, settings: QuerySettings) -> Provenance:
        return provenance_of(self.index, self._encoder, settings)


def _check_arguments(study: object, settings: object) -> None:
    """A slip of the caller, told by name before anything is opened."""
    if not isinstance(study, str | os.PathLike):
        raise TypeError(f"study is a {type(study).__name__}, expected a path (str or pathlib.Path)")
    if not isinstance(settings, QuerySettings):
        raise TypeError(
            f"settings is a {type(settings).__name__}, expected ildsdk.QuerySettings, for example "
            "QuerySettings(top_n=5)"
        )
