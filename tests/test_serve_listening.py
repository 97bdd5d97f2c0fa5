"""Where the server listens: who can connect, what it replaces, what it leaves."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from ildsdk.errors import ConfigError
from ildsdk.serve import listening
from ildsdk.serve.listening import listen_on_port, listen_on_socket


def test_the_socket_is_for_its_user_alone_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    before = os.umask(0)
    try:
        with listen_on_socket(path) as listener:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert listener.is_private
            assert listener.address == str(path)
        assert os.umask(0) == 0  # the process's own umask is back
    finally:
        os.umask(before)
    assert not path.exists()


def test_the_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with listen_on_socket(path):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
        with (
            pytest.raises(ConfigError, match=r"listens on s\.sock already"),
            listen_on_socket(path),
        ):
            pass
        assert path.is_socket()  # the refused one took nothing away


def test_a_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="no socket"), listen_on_socket(path):
        pass
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ConfigError, match="no socket"), listen_on_socket(tmp_path / "link"):
        pass
    assert path.read_text() == "mine"


def test_clean_up_does_not_remove_what_another_server_made(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with listen_on_socket(path) as first:
        first.bound.close()
        path.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    assert path.is_socket()
    other.close()


def test_folders_in_which_others_could_replace_the_socket_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    for mode in (0o777, 0o770):
        folder.chmod(mode)
        with (
            pytest.raises(ConfigError, match="other users may write"),
            listen_on_socket(folder / "s"),
        ):
            pass
    folder.chmod(0o1777)  # as /tmp: nobody can remove another's file
    with listen_on_socket(folder / "s"):
        pass
    with (
        pytest.raises(ConfigError, match="folder for the socket cannot be opened"),
        listen_on_socket(tmp_path / "absent" / "s"),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="too long") as caught,
        listen_on_socket(tmp_path / ("x" * 120)),
    ):
        pass
    assert str(tmp_path) not in str(caught.value)


def test_folders_that_others_could_replace_are_refused(tmp_path: Path) -> None:
    above, private, sticky = tmp_path / "above", tmp_path / "above/mine", tmp_path / "above/tmp"
    private.mkdir(parents=True)
    sticky.mkdir()
    private.chmod(0o700)
    sticky.chmod(0o1777)
    (tmp_path / "link").symlink_to(private)
    for folder in (private, sticky, tmp_path / "link"):
        above.chmod(0o777)
        with (
            pytest.raises(ConfigError, match="a folder above that for the socket"),
            listen_on_socket(folder / "s"),
        ):
            pass
        assert not (folder / "s").exists()
        above.chmod(0o755)
        with listen_on_socket(folder / "s"):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with (
        pytest.raises(ConfigError, match="belongs to another user"),
        listen_on_socket(folder / "s"),
    ):
        pass


def test_a_folder_that_another_program_keeps_locked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_LOCK_S", 0.2)
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    # Where a wait has no end, the test fails instead of hanging: the lock is let go.
    letting_go = threading.Timer(5, os.close, [handle])
    letting_go.start()
    with pytest.raises(ConfigError, match="keeps the folder"), listen_on_socket(tmp_path / "s"):
        pass
    letting_go.cancel()
    # One that is only busy starting is waited for.
    monkeypatch.setattr(listening, "_LOCK_S", 10)
    threading.Timer(0.1, os.close, [handle]).start()
    with listen_on_socket(tmp_path / "s"):
        pass


def test_a_port_is_of_the_loopback_interface_only() -> None:
    with listen_on_port(0) as listener:
        host, port = listener.bound.getsockname()
        assert host == "127.0.0.1"
        assert not listener.is_private
        assert listener.address == f"http://127.0.0.1:{port}"
        assert listener.hosts == (f"127.0.0.1:{port}", f"localhost:{port}")
        with (
            pytest.raises(ConfigError, match=f"port {port} .*cannot be bound"),
            listen_on_port(port),
        ):
            pass
