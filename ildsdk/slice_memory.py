"""Remembers what slices came to, so that a repeated slice is not computed twice."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import struct
import threading
import time
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import Final

import numpy as np
import numpy.typing as npt

from ildsdk.encoder import EncodedSlice, Encoder
from ildsdk.errors import ConfigError, SliceUnusableError
from ildsdk.records import CtSlice
from ildsdk.stopping import LOOK_EVERY_S, StopCheck, never_stop

# About 2 KB a slice at 128 dimensions, so 8 MB: more than all slices of any study.
DEFAULT_MAX_SLICES: Final = 4096
_DIGEST_BYTES: Final = 32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    lung_area_mm2: float
    features: npt.NDArray[np.float64]
    embedding: npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Refused:
    reason: str
    detail: str


_Outcome = _Remembered | _Refused


class SliceMemory:
    """An encoder with a memory of the last slices it saw; safe to share between threads.

    A slice is recognized by its content: size, pixel spacing and every Hounsfield unit,
    whatever file, study or encoding it came in. What is remembered never leaves its encoder, so it
    is always of this bundle, precision and provider. Refusals (no lung, too little) are remembered
    too. A slice that is being computed is waited for, not computed beside.

    Parameters
    ----------
    encoder : Encoder
    max_slices : int
        Bound; the least recently used are forgotten. 0: remember nothing and recognize nothing.

    Raises
    ------
    ConfigError
        ``max_slices`` is negative.
    """

    def __init__(self, encoder: Encoder, max_slices: int = DEFAULT_MAX_SLICES) -> None:
        if max_slices < 0:
            raise ConfigError(f"remembered_slices is {max_slices!r}, expected 0 or more")
        self.encoder = encoder
        self.max_slices = max_slices
        self._lock = threading.Lock()
        self._outcomes: collections.OrderedDict[bytes, Future[_Outcome]] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._outcomes)

    def encode(
        self,
        ct_slice: CtSlice,
        *,
        needs_mask: bool = False,
        with_locations: bool = False,
        n_at_once: int = 1,
        check: StopCheck = never_stop,
    ) -> EncodedSlice:
        """Embed one slice, or recognize it.

        Parameters
        ----------
        needs_mask : bool
            The result must hold the lung mask, which is not remembered and made anew (radiomics and
            network are not).
        with_locations, n_at_once, check
            As in :meth:`ildsdk.encoder.Encoder.encode`; location vectors are not remembered, so
            a slice asked for with them is computed whole.

        Returns
        -------
        EncodedSlice
            Always with the ``ct_slice`` handed in. ``timings_ms`` of a recognized slice holds
            ``reused``, the time it took to recognize it, and no stage that was left out; that
            of another one ``recognize``, the time it took to find that it is new.

        Raises
        ------
        SliceUnusableError, ModelError, ConfigError
            As :meth:`ildsdk.encoder.Encoder.encode`.
        """
        if self.max_slices == 0 or with_locations:
            return self.encoder.encode(
                ct_slice, with_locations=with_locations, n_at_once=n_at_once, check=check
            )
        started = time.perf_counter()
        key = content_key(ct_slice)
        while True:
            future, is_new = self._claim(key)
            if is_new:
                recognize_ms = _ms_since(started)
                encoded = self._compute(key, future, ct_slice, n_at_once, check)
                timings_ms = {"recognize": recognize_ms, **encoded.timings_ms}
                return dataclasses.replace(encoded, timings_ms=timings_ms)
            outcome = _wait(future, check)
            if isinstance(outcome, _Refused):
                raise SliceUnusableError(outcome.reason, outcome.detail)
            if outcome is not None:
                return self._recalled(ct_slice, outcome, _ms_since(started), needs_mask)
            # Its computation was ended or failed, which says nothing about the slice: do it here.

    def _claim(self, key: bytes) -> tuple[Future[_Outcome], bool]:
        """The entry of a slice, and whether it is the caller's to fill."""
        with self._lock:
            future = self._outcomes.get(key)
            if future is not None:
                self._outcomes.move_to_end(key)
                return future, False
            future = self._outcomes[key] = Future()
            while len(self._outcomes) > self.max_slices:
                self._outcomes.popitem(last=False)
            return future, True

    def _compute(
        self,
        key: bytes,
        future: Future[_Outcome],
        ct_slice: CtSlice,
        n_at_once: int,
        check: StopCheck,
    ) -> EncodedSlice:
        try:
            encoded = self.encoder.encode(ct_slice, n_at_once=n_at_once, check=check)
        except SliceUnusableError as error:
            future.set_result(_Refused(reason=error.reason, detail=error.detail))
            raise
        except BaseException:
            with self._lock:
                if self._outcomes.get(key) is future:
                    del self._outcomes[key]
            future.cancel()
            raise
        future.set_result(
            _Remembered(
                lung_area_mm2=encoded.lung_area_mm2,
                # Copies, here and when recalled: whoever got an array may write into it.
                features=encoded.features.copy(),
                embedding=encoded.embedding.copy(),
            )
        )
        return encoded

    def _recalled(
        self, ct_slice: CtSlice, outcome: _Remembered, reused_ms: float, needs_mask: bool
    ) -> EncodedSlice:
        timings_ms = {"reused": reused_ms}
        lung = None
        if needs_mask:
            from ildsdk.lung import segment_lung  # starts numba, as in the encoder

            started = time.perf_counter()
            lung = segment_lung(
                ct_slice.pixels_hu,
                ct_slice.pixel_spacing_mm,
                min_area_mm2=self.encoder.bundle.method.min_lung_area_mm2,
            )
            timings_ms["mask"] = _ms_since(started)
        return EncodedSlice(
            ct_slice=ct_slice,
            lung_area_mm2=outcome.lung_area_mm2,
            lung=lung,
            features=outcome.features.copy(),
            embedding=outcome.embedding.copy(),
            timings_ms=timings_ms,
        )


def content_key(ct_slice: CtSlice) -> bytes:
    """BLAKE2b digest (32 bytes) of all that an embedding depends on besides the encoder."""
    pixels: npt.NDArray[np.float32 | np.int16] = np.ascontiguousarray(ct_slice.pixels_hu)
    # Whole numbers, as most HU are, in half the bytes: hashing is what recognizing costs.
    with np.errstate(invalid="ignore"):
        whole = pixels.astype(np.int16)
    if np.array_equal(whole, pixels):
        pixels = whole
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(f"{pixels.dtype.str} {pixels.shape}".encode())
    digest.update(struct.pack("<dd", *ct_slice.pixel_spacing_mm))
    digest.update(pixels.data)
    return digest.digest()


def _wait(future: Future[_Outcome], check: StopCheck) -> _Outcome | None:
    """What another thread finds; None where it does not come to a result."""
    while not future.done():
        check()
        wait_for([future], timeout=LOOK_EVERY_S)
    return None if future.cancelled() else future.result()


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1e3, 3)
