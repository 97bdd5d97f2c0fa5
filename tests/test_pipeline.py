"""The stream of slices: order, bound, early end; one slice alone and many at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from ildsdk.bundle import Bundle
from ildsdk.encoder import Encoder
from ildsdk.errors import (
    ConfigError,
    QueryCancelledError,
    QueryStoppedError,
    QueryTimeoutError,
    SliceUnusableError,
)
from ildsdk.ordered_work import ordered_work
from ildsdk.records import CtSlice
from ildsdk.settings import RuntimeSettings
from ildsdk.stopping import StopSignal
from tests.archive_factory import SETTINGS
from tests.bundle_factory import write_tiny_bundle


def stream_threads() -> list[str]:
    """Names of the library's threads that are alive."""
    return [one.name for one in threading.enumerate() if one.name.startswith("ildsdk")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert stream_threads() == []


class TestOrderedWork:
    @pytest.mark.parametrize("n_threads", [1, 2, 5])
    def test_results_come_in_order_whatever_is_done_first(self, n_threads: int) -> None:
        def work(number: int, check: object) -> int:
            time.sleep(0.003 * (number % 4 == 0))
            return number * number

        found = list(
            ordered_work(
                work, range(20), n_threads=n_threads, n_ahead=2 * n_threads, stop=StopSignal()
            )
        )
        assert found == [(number, number * number) for number in range(20)]

    def test_never_further_ahead_than_said(self) -> None:
        begun: list[int] = []
        stream = ordered_work(
            lambda number, check: begun.append(number),
            range(100),
            n_threads=2,
            n_ahead=4,
            stop=StopSignal(),
        )
        for n_taken, _ in enumerate(stream, start=1):
            if n_taken == 10:
                break
        time.sleep(0.05)
        assert 10 <= len(begun) <= 10 + 4
        assert stream_threads()
        stream.close()

    def test_an_error_comes_at_its_turn_and_ends_the_rest(self) -> None:
        def work(number: int, check: object) -> int:
            if number == 3:
                raise ZeroDivisionError
            return number

        stream = ordered_work(work, range(100), n_threads=2, n_ahead=4, stop=StopSignal())
        assert [next(stream)[0] for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ZeroDivisionError):
            next(stream)
        assert stream_threads() == []

    def test_closing_ends_work_in_hand_at_its_next_check(self) -> None:
        is_begun = threading.Event()
        ends: list[str] = []

        def work(number: int, check: object) -> int:
            if number == 0:
                return 0
            is_begun.set()
            try:
                for _ in range(1000):
                    time.sleep(0.005)
                    check()  # type: ignore[operator]
            except QueryCancelledError:
                ends.append("told")
                raise
            return number

        stream = ordered_work(work, range(100), n_threads=2, n_ahead=4, stop=StopSignal())
        assert next(stream) == (0, 0)
        assert is_begun.wait(5)
        started = time.perf_counter()
        stream.close()
        assert time.perf_counter() - started < 1
        assert ends
        assert stream_threads() == []

    def test_dropping_the_stream_ends_it(self) -> None:
        stream = ordered_work(
            lambda number, check: number, range(100), n_threads=2, n_ahead=4, stop=StopSignal()
        )
        next(stream)
        del stream
        assert stream_threads() == []

    @pytest.mark.parametrize("n_threads", [1, 2])
    def test_a_token_set_while_waiting_wakes_the_consumer(self, n_threads: int) -> None:
        token = threading.Event()

        def work(number: int, check: object) -> int:
            token.set()
            for _ in range(1000):
                time.sleep(0.005)
                check()  # type: ignore[operator]
            return number

        stream = ordered_work(
            work, range(9), n_threads=n_threads, n_ahead=4, stop=StopSignal(cancel=token)
        )
        started = time.perf_counter()
        with pytest.raises(QueryCancelledError):
            next(stream)
        assert time.perf_counter() - started < 1


class TestStopSignal:
    def test_without_wish_work_goes_on(self) -> None:
        StopSignal().check()

    def test_callable_and_event_are_tokens(self) -> None:
        event = threading.Event()
        for signal in (StopSignal(cancel=event), StopSignal(cancel=event.is_set)):
            event.clear()
            signal.check()
            event.set()
            signal.progress = "after 3 of 5 slices"
            with pytest.raises(QueryCancelledError, match="cancelled by the caller after 3 of 5"):
                signal.check()

    def test_time_over(self) -> None:
        signal = StopSignal(timeout_s=0.001)
        time.sleep(0.002)
        with pytest.raises(QueryTimeoutError, match=r"limit of 0\.001 s was reached before the"):
            signal.check()

    @pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
    def test_no_time_is_refused(self, timeout_s: float) -> None:
        with pytest.raises(ConfigError, match="timeout_s"):
            StopSignal(timeout_s=timeout_s)

    def test_what_is_no_token_is_refused(self) -> None:
        with pytest.raises(TypeError, match="is_set"):
            StopSignal(cancel=5)  # type: ignore[arg-type]

    def test_errors_stand_under_one(self) -> None:
        assert issubclass(QueryCancelledError, QueryStoppedError)
        assert issubclass(QueryTimeoutError, QueryStoppedError)
        assert (QueryCancelledError.code, QueryTimeoutError.code) == ("cancelled", "timeout")
        assert QueryTimeoutError.exit_code == 6


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", with_maps=True)


@pytest.fixture(scope="module")
def ct_slice() -> CtSlice:
    return phantom_slice()


class TestEncoder:
    @pytest.mark.parametrize("n_threads", [1, 2, 3])
    def test_company_does_not_change_the_embedding(
        self, bundle: Bundle, ct_slice: CtSlice, n_threads: int
    ) -> None:
        encoder = Encoder(bundle, RuntimeSettings(provider="cpu", n_threads=n_threads))
        alone = encoder.encode(ct_slice, with_locations=True)
        among = encoder.encode(ct_slice, with_locations=True, n_at_once=8)
        encoder.expect(1000)
        assert (encoder._narrow is not None) == (n_threads > 1)
        among_many = encoder.encode(ct_slice, n_at_once=8)
        np.testing.assert_allclose(alone.embedding, among.embedding, atol=1e-6)
        np.testing.assert_allclose(alone.embedding, among_many.embedding, atol=1e-6)
        np.testing.assert_array_equal(alone.features, among.features)
        assert alone.locations is not None
        assert among.locations is not None
        np.testing.assert_allclose(alone.locations, among.locations, atol=1e-6)
        stages = {"mask", "radiomics", "model_input", "backbone", "fusion", "explain"}
        assert set(alone.timings_ms) == set(among.timings_ms) == stages

    def test_alone_radiomics_runs_beside_the_backbone(
        self, bundle: Bundle, ct_slice: CtSlice, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoder = Encoder(bundle, RuntimeSettings(provider="cpu", n_threads=2))
        where = {}
        backbone_session = encoder._networks.backbone
        whole_features, whole_backbone = encoder._features, backbone_session.run_all

        # Each waits inside until the other is inside too: one after the other would break it.
        both = threading.Barrier(2, timeout=20)
        is_alone = True

        def features(*arguments: object) -> object:
            where["radiomics"] = threading.current_thread().name
            if is_alone:
                both.wait()
            return whole_features(*arguments)  # type: ignore[arg-type]

        def backbone(*arguments: object) -> object:
            where["backbone"] = threading.current_thread().name
            if is_alone:
                both.wait()
            return whole_backbone(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(encoder, "_features", features)
        monkeypatch.setattr(backbone_session, "run_all", backbone)
        encoder.encode(ct_slice)
        assert where["radiomics"] != where["backbone"] == threading.current_thread().name
        is_alone = False
        encoder.encode(ct_slice, n_at_once=2)
        assert where["radiomics"] == where["backbone"] == threading.current_thread().name

    def test_networks_of_one_thread_are_opened_for_many_slices_only(self, bundle: Bundle) -> None:
        encoder = Encoder(bundle, RuntimeSettings(provider="cpu", n_threads=2))
        encoder.expect(30)
        assert encoder._narrow is None
        assert encoder._networks_for(2) is encoder._networks
        encoder.expect(300)
        opened = encoder._narrow
        encoder.expect(300)
        assert encoder._narrow is opened
        assert encoder._networks_for(1) is encoder._networks
        assert encoder._networks_for(2) == opened

    @pytest.mark.parametrize("n_at_once", [1, 2])
    def test_refused_radiomics_come_out_typed(
        self,
        bundle: Bundle,
        ct_slice: CtSlice,
        monkeypatch: pytest.MonkeyPatch,
        n_at_once: int,
    ) -> None:
        encoder = Encoder(bundle, RuntimeSettings(provider="cpu", n_threads=2))

        def refuse(*arguments: object, **more: object) -> None:
            raise SliceUnusableError("roi-degenerate", "made up")

        monkeypatch.setattr(encoder._extractor, "extract", refuse)
        with pytest.raises(SliceUnusableError, match="roi-degenerate"):
            encoder.encode(ct_slice, n_at_once=n_at_once)

    def test_work_ends_between_stages(self, bundle: Bundle, ct_slice: CtSlice) -> None:
        encoder = Encoder(bundle, RuntimeSettings(provider="cpu", n_threads=2))
        for n_checks in range(3):
            calls = []

            def check(calls: list[int] = calls, n_checks: int = n_checks) -> None:
                calls.append(1)
                if len(calls) > n_checks:
                    raise QueryCancelledError("made up")

            if n_checks < 2:
                with pytest.raises(QueryCancelledError):
                    encoder.encode(ct_slice, check=check)
            else:
                encoder.encode(ct_slice, check=check)

    def test_working_memory_is_kept_for_so_many_threads(
        self, bundle: Bundle, ct_slice: CtSlice
    ) -> None:
        encoder = Encoder(bundle, RuntimeSettings(provider="cpu", n_threads=2))
        threads = [
            threading.Thread(target=encoder.encode, args=(ct_slice,), kwargs={"n_at_once": 2})
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= len(encoder._scratches) <= 2


def phantom_slice(seed: int = 1) -> CtSlice:
    """A slice of a phantom that shows lung."""
    from export.phantom import generate_case

    case = generate_case("IPF-ILD", seed, SETTINGS)
    return CtSlice(
        pixels_hu=case.pixels_hu[2].astype(np.float32),
        pixel_spacing_mm=tuple(map(float, case.pixel_spacing_mm)),  # type: ignore[arg-type]
        position_mm=float(case.position_mm[2]),
        source="a.dcm",
        study_instance_uid="1.2",
        series_instance_uid="1.2.3",
        sop_instance_uid="1.2.3.4",
    )
