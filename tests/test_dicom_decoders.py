"""pydicom and its decoders: imported by one thread, all at once, and only where needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from ildsdk import defaults
from ildsdk.dicom import codecs, decoders, discover, read_slice
from ildsdk.errors import BrokenDecoderError, DecodeError
from ildsdk.records import SkippedItem
from ildsdk.stopping import StopSignal
from ildsdk.study_encoding import iter_slices
from tests import dicom_factory as factory

# Notes what is imported by which thread, and lets another thread come in at chosen places.
WATCH = """
import sys, threading
imported, came_in = [], {}
def watch(event, arguments):
    # Not a finder: Python finds one module at a time.
    if event == "import":
        imported.append((threading.current_thread().name, arguments[0]))
        if arguments[0] in came_in:
            came_in.pop(arguments[0]).set()
            threading.Event().wait(0.2)
sys.addaudithook(watch)
"""
STAGGERED = """
from concurrent.futures import ThreadPoolExecutor
from ildsdk.dicom import discover, read_slice
headers = discover(sys.argv[1]).studies[0].slices
places = "pydicom.config", "pydicom.misc", "pydicom.dataset"
comes_in = [threading.Event() for _ in places]
came_in.update(zip(places, comes_in))
def read(header, comes_in):
    if comes_in is not None:
        assert comes_in.wait(60)
    return read_slice(header)
with ThreadPoolExecutor(4) as pool:
    assert len(list(pool.map(read, headers, [None, *comes_in]))) == 4
"""
STREAM = """
from ildsdk.dicom import discover
from ildsdk.stopping import StopSignal
from ildsdk.study_encoding import iter_slices
study = discover(sys.argv[1]).studies[0]
def work(ct_slice, decode_ms, *, n_at_once, check):
    return threading.current_thread().name
names = list(iter_slices(study, work, n_threads=4, stop=StopSignal()))
assert all(isinstance(name, str) for name in names), names
assert "MainThread" not in names
print(sorted({name for thread, name in imported if thread in names}))
"""


def in_a_fresh_process(code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WATCH + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def series(folder: Path, syntax: str = JPEGLSLossless) -> Path:
    def edit(ds, _number: int) -> None:
        if syntax != ExplicitVRLittleEndian:
            ds.compress(syntax)

    factory.write_ct_series(folder, n_slices=4, edit=edit)
    return folder


def test_threads_may_meet_in_the_first_decode_of_a_process(tmp_path: Path) -> None:
    in_a_fresh_process(STAGGERED, series(tmp_path / "s"))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_slice_threads_import_nothing_to_decode(tmp_path: Path, syntax: str) -> None:
    found = in_a_fresh_process(STREAM, series(tmp_path / "s", syntax))
    assert not [
        name
        for name in json.loads(found.replace("'", '"'))
        if name.split(".")[0] not in ("ildsdk", "native_hash", "numpy", "encodings")
    ]


def test_plain_pixels_start_without_pydicom(tmp_path: Path) -> None:
    code = STREAM + "assert 'pydicom' not in sys.modules\n"
    in_a_fresh_process(code, series(tmp_path / "s", ExplicitVRLittleEndian))


def test_real_files_of_each_syntax_decode_without_another_import(shared_data: Path) -> None:
    """Baseline, extended, lossless JPEG, JPEG-LS, JPEG 2000, RLE, intact or damaged."""
    code = """
from ildsdk.dicom import discover, load_decoders, read_slice
from ildsdk.errors import IldError
studies = discover(sys.argv[1], every_mm=0).studies
headers = [header for study in studies for header in study.slices]
load_decoders(headers)
before = set(sys.modules)
n_read = 0
for header in headers:
    try:
        read_slice(header)
    except IldError:
        pass
    n_read += 1
print(n_read, sorted(set(sys.modules) - before))
"""
    for folder in ("dicom_ts", "dicom_odd"):
        count, _, modules = in_a_fresh_process(code, shared_data / folder).partition(" ")
        assert int(count) > 0
        assert not [
            name
            for name in modules.split("'")[1::2]
            if not name.startswith(("ildsdk.", "native_hash."))
        ]


def test_a_decoder_that_cannot_be_imported_is_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study,) = discover(series(tmp_path / "s")).studies

    def broken(*_: object, **__: object) -> None:
        raise ImportError("libcharls.so.2: cannot open", name="jpeg_ls")

    monkeypatch.setattr(type(get_decoder(JPEGLSLossless)), "as_array", broken)
    with pytest.raises(BrokenDecoderError, match=r"jpeg_ls.*force-reinstall pyjpegls") as caught:
        read_slice(study.slices[0])
    assert "damaged" not in str(caught.value)

    def work(*_: object, **__: object) -> None:
        raise AssertionError("nothing was decoded")

    for outcome in iter_slices(study, work, n_threads=2, stop=StopSignal()):
        assert isinstance(outcome, SkippedItem)
        assert outcome.reason == "decoder-broken"


def test_a_broken_package_is_told_from_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study,) = discover(series(tmp_path / "s")).studies
    monkeypatch.setattr(get_decoder(JPEGLSLossless), "_available", {})
    with pytest.raises(DecodeError, match="no decoder installed"):
        read_slice(study.slices[0])
    monkeypatch.setattr(decoders, "BROKEN_PACKAGES", ("pyjpegls",))
    with pytest.raises(BrokenDecoderError, match=r"cannot be imported .pyjpegls."):
        read_slice(study.slices[0])


def test_pydicom_itself_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (study,) = discover(series(tmp_path / "s")).studies
    monkeypatch.setattr(decoders, "PYDICOM", None)
    monkeypatch.setattr(decoders, "BROKEN_PACKAGES", ("pydicom",))
    with pytest.raises(BrokenDecoderError, match=r"cannot be imported .pydicom."):
        read_slice(study.slices[0])
    assert not any(codecs.decoder_status().values())


@pytest.mark.parametrize(
    ("content", "is_broken"),
    [
        (None, False),
        ("import a_library_that_is_not_here", True),
        ("raise RuntimeError('built for another numpy')", True),
    ],
)
def test_packages_are_broken_where_their_import_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, is_broken: bool
) -> None:
    name = f"decoder_{abs(hash(content))}"
    if content is not None:
        (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(decoders, "_PACKAGES", {name: "its-package"})
    assert decoders.broken_packages() == (("its-package",) if is_broken else ())


@pytest.mark.slow
@pytest.mark.parametrize("command", ["query", "embed", "index"])
def test_fresh_processes_answer_every_slice(tmp_path: Path, command: str) -> None:
    study = defaults.demo_study_path()
    table = tmp_path / "cases.csv"
    table.write_text(f"path,case_id,label\n{study},CASE-1,IPF-ILD\n")
    counts = set()
    for number in range(40):
        index = tmp_path / f"index-{number}"
        arguments: dict[str, list[object]] = {
            "query": ["query", study, "-q", "--format", "json"],
            "embed": ["embed", study],
            "index": ["index", "build", index, "--cases", table, "-q"],
        }
        done = subprocess.run(
            [sys.executable, "-m", "ildsdk", *map(str, arguments[command])],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        if command == "index":
            counts.add(json.loads(subprocess.check_output(
                [sys.executable, "-m", "ildsdk", "index", "info", index], text=True
            ))["n_items"])  # fmt: skip
        else:
            answer = json.loads(done.stdout)
            answer = answer["studies"][0] if command == "query" else answer
            counts.add(len(answer["slices"]))
    assert counts == {16}
