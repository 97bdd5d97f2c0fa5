"""``ildsdk query --socket`` and ``ildsdk serve`` as users type them."""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ildsdk import cli
from ildsdk.errors import IldError, QueryTimeoutError, ServerBusyError, ServerError
from ildsdk.serve import client as client_module
from ildsdk.serve import server, service
from ildsdk.serve.client import Client, RefusedQueryError
from ildsdk.serve.problems import error_from_problem, problem_of
from tests.serve_factory import Running, one_file, running_server
from tests.test_serve_http import blocked_queries, wait_for


@pytest.fixture(scope="module")
def served(serve_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(serve_world, tmp_path_factory.mktemp("s") / "s.sock") as running:
        yield running


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command, in this process."""
    code = 0
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def in_process(world: Path) -> tuple[object, ...]:
    return ("--bundle", world / "bundle", "--index", world / "index", "--provider", "cpu")


def without_times(text: str) -> str:
    text = re.sub(r'"timings_ms": \{[^}]*\}', "", text)
    return re.sub(r"^(Median slice|Wall clock) .*\n(?: {14}.*\n)*", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("form", ["json", "table"])
def test_the_output_is_that_of_a_query_in_process(
    served: Running, serve_world: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--format", form, "--every-mm", 0, "-n", 3)
    query = ("query", serve_world / "study", *options)
    expected = run(*query, *in_process(serve_world), capsys=capsys)
    found = run(*query, "--socket", served.listener.address, capsys=capsys)
    assert expected[0] == found[0] == 0, found
    assert without_times(found[1]) == without_times(expected[1])
    assert "PHANTOM-" in found[1]
    assert found[2] == expected[2] == ""


def test_errors_are_the_same_lines_and_exit_codes(
    served: Running, serve_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    for query in (
        ("query", tmp_path),
        ("query", tmp_path, "--format", "json"),
        ("query", tmp_path / "absent"),
        ("query", serve_world / "study", "--series", "1.2.3"),
    ):
        expected = run(*query, *in_process(serve_world), capsys=capsys)
        found = run(*query, "--socket", served.listener.address, capsys=capsys)
        assert found == expected
        assert found[0] in (2, 3)


def test_relative_paths_are_of_the_client(
    served: Running, serve_world: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(serve_world)
    code, _, err = run("query", "study", "--socket", served.listener.address, capsys=capsys)
    assert code == 0, err


def test_upload_sends_bytes(
    served: Running, serve_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ("--socket", served.listener.address, "--upload", "--format", "json")
    code, out, err = run("query", one_file(serve_world), *ask, capsys=capsys)
    assert code == 0, err
    assert json.loads(out)["studies"][0]["slices"][0]["source"] == "upload.dcm"
    code, _, err = run("query", serve_world / "study", *ask, capsys=capsys)
    assert code == 2
    assert "make a zip" in err
    code, _, err = run("query", serve_world / "absent", *ask, capsys=capsys)
    assert (code, "does not exist" in err) == (2, True)
    code, _, err = run("query", one_file(serve_world), "--upload", capsys=capsys)
    assert code == 2


def test_upload_of_a_path_that_cannot_be_read_ends_as_without_the_socket(
    served: Running, serve_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (one_file(serve_world) / "below-a-file", serve_world / ("x" * 300)):
        query = ("query", path, "--format", "json")
        expected = run(*query, *in_process(serve_world), capsys=capsys)
        found = run(*query, "--socket", served.listener.address, "--upload", capsys=capsys)
        assert found == expected
        assert found[0] == 2
        assert "cannot be read" in found[2]


def test_options_of_the_server_are_refused_beside_the_socket(
    served: Running, serve_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in (
        ("--index", serve_world / "index"),
        ("--bundle", serve_world / "bundle"),
        ("--provider", "cpu"),
        ("--threads", 2),
        ("--report", tmp_path / "page.html"),
    ):
        code, _, err = run(
            "query", serve_world / "study", "--socket", served.listener.address, *option,
            capsys=capsys,
        )  # fmt: skip
        assert code == 2, option
        assert str(option[0]) in err


def test_nobody_there(
    serve_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run("query", serve_world / "study", "--socket", tmp_path / "s", capsys=capsys)
    assert (code, out) == (7, "")
    assert "ildsdk serve --socket" in err
    assert str(tmp_path) not in err
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    code, _, err = run("query", serve_world / "study", "--socket", tmp_path / "dead", capsys=capsys)
    assert code == 7
    assert "any more" in err
    code, _, err = run("query", "x", "--socket", tmp_path / ("x" * 120), capsys=capsys)
    assert (code, "too long" in err) == (2, True)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "went away"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "went away"),
        (b"SSH-2.0-OpenSSH\r\n", "went away"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "no ildsdk server"),
    ],
)
def test_somebody_else_there(tmp_path: Path, answer: bytes, text: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        def reply() -> None:
            connected, _ = listening.accept()
            connected.recv(1 << 16)
            connected.sendall(answer)
            connected.close()

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(IldError, match=text) as caught, Client(tmp_path / "s") as client:
            client.info()
        thread.join(10)
    assert caught.value.exit_code == 7


def test_a_kept_connection_that_the_server_closed_is_made_anew(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_KEEP_ALIVE_S", 0)
    with running_server(serve_world, tmp_path / "s") as running, running.client() as client:
        expected = without_times(client.query(one_file(serve_world)))
        time.sleep(0.2)
        assert without_times(client.query(one_file(serve_world))) == expected
        time.sleep(0.2)
        uploaded = client.upload(one_file(serve_world))
        assert json.loads(uploaded)["studies"][0]["slices"][0]["source"] == "upload.dcm"


def test_a_server_that_goes_twice_is_not_asked_for_ever(tmp_path: Path) -> None:
    n_asked = 0
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        def reply() -> None:
            nonlocal n_asked
            for answers in ((answer, b""), (b"",)):
                connected, _ = listening.accept()
                for text in answers:
                    n_asked += bool(connected.recv(1 << 16))
                    connected.sendall(text)
                connected.close()

        thread = threading.Thread(target=reply)
        thread.start()
        with Client(tmp_path / "s") as client:
            assert client.info() == {}
            with pytest.raises(ServerError, match="went away"):
                client.info()
        thread.join(10)
    assert n_asked == 3


def test_a_server_of_another_user_is_not_asked(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module.os, "geteuid", lambda: 4711)
    owner = Path(served.listener.address).stat().st_uid
    if owner == 0:
        assert Client(Path(served.listener.address)).info()  # the system's own is trusted
        monkeypatch.setattr(client_module.struct, "unpack", lambda form, data: (1, 4712, 4712))
    with pytest.raises(IldError, match="another user"):
        Client(Path(served.listener.address)).info()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's socket")
def test_root_asks_a_users_server_only_where_that_user_put_it(
    served: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module.struct, "unpack", lambda form, data: (1, 65534, 65534))
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    path = folder / "s"
    os.link(served.listener.address, path)
    for owner, parent_mode, is_asked in (
        (65534, 0o755, True),
        (65534, 0o777, False),
        (0, 0o755, False),
    ):
        os.chown(folder, 65534, 65534)
        os.chown(path, owner, 0)
        tmp_path.chmod(parent_mode)
        try:
            if is_asked:
                assert Client(path).info()
            else:
                with pytest.raises(ServerError, match="others may have put it there"):
                    Client(path).info()
        finally:
            os.chown(path, 0, 0)
            tmp_path.chmod(0o700)


def test_busy_and_late_are_told_with_their_own_exit_codes(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with running_server(serve_world, tmp_path / "s") as running:
        for error, code in (
            (ServerBusyError("no place", 3), 7),
            (QueryTimeoutError("too late"), 6),
        ):

            def refuse(*args: Any, error: IldError = error) -> None:
                raise error

            monkeypatch.setattr(service.Service, "admit", refuse)
            found, _, err = run(
                "query", serve_world / "study", "--socket", running.listener.address, capsys=capsys
            )
            assert found == code
            assert err == f"error ({error.code}): {error}\n"


def test_the_client_has_a_time_limit_of_its_own(
    serve_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with (
        running_server(serve_world, tmp_path / "s", max_waiting=0) as running,
        blocked_queries(monkeypatch),
    ):
        query = ("query", serve_world / "study", "--socket", running.listener.address)
        code, out, err = run(*query, "--timeout", 0.2, capsys=capsys)
        assert (code, out) == (6, "")
        assert "0.2 s" in err
        # The server notices and is free again.
        wait_for(lambda: running.server.service.queue.n_admitted == 0)


def test_the_time_limit_is_that_of_all_steps_together(tmp_path: Path) -> None:
    study = tmp_path / "large.dcm"
    study.write_bytes(b"x" * (4 << 20))
    is_over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        def trickle() -> None:
            for take in (1 << 16, 1 << 13):
                connected, _ = listening.accept()
                with connected, contextlib.suppress(OSError):
                    if take == 1 << 16:
                        connected.recv(take)
                        connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n")
                    for _ in range(60):
                        if take == 1 << 16:
                            connected.sendall(b"x")
                        else:
                            connected.recv(take)
                        is_over.wait(0.05)

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            for ask in (Client.query, Client.upload):
                started = time.monotonic()
                with (
                    Client(tmp_path / "s", timeout_s=0.3) as client,
                    pytest.raises(QueryTimeoutError, match=r"0\.3 s"),
                ):
                    ask(client, study)
                assert time.monotonic() - started < 2
        finally:
            is_over.set()
            thread.join(10)


def test_errors_survive_the_way_through_a_problem() -> None:
    from ildsdk import errors

    for kind in vars(errors).values():
        if not (isinstance(kind, type) and issubclass(kind, IldError)):
            continue
        if kind in (errors.NoUsableSliceError, errors.SliceUnusableError):
            continue
        again = error_from_problem(json.loads(json.dumps(problem_of(kind("why")))))
        assert type(again) is kind
        assert (str(again), again.exit_code) == ("why", kind.exit_code)
    assert type(error_from_problem({"code": "new", "detail": "why"})) is errors.ServerError


def test_a_refused_query_is_one_of_our_errors() -> None:
    refused = RefusedQueryError(ServerBusyError("no place", 3), None)
    assert isinstance(refused, IldError)
    assert (refused.code, refused.exit_code) == ("server-busy", 7)


def test_serve_wants_one_place_to_listen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("serve", capsys=capsys)[0] == 2
    assert run("serve", "--socket", tmp_path / "s", "--port", 0, capsys=capsys)[0] == 2


def test_without_the_extra_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real_import = builtins.__import__

    def without_uvicorn(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "uvicorn":
            raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_uvicorn)
    code, _, err = run("serve", "--socket", tmp_path / "s", capsys=capsys)
    assert code == 2
    assert "pip install 'ildsdk[serve]'" in err
    assert not (tmp_path / "s").exists()
