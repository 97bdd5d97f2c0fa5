"""What is executed is read only from a folder that nobody else can change."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ildsdk.errors import ModelError
from ildsdk.runtime.private_folder import (
    check_private_file,
    check_private_folder,
    make_private_folder,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX owners and modes")


def test_a_new_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = make_private_folder(tmp_path / "cache" / "engines")
    for made in (folder, folder.parent):
        assert stat.S_IMODE(made.stat().st_mode) & 0o022 == 0
    assert make_private_folder(folder) == folder.resolve()


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ModelError, match=r"other users can write 'cache'.*chmod go-w"):
        make_private_folder(folder)


def test_a_folder_above_that_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open" / "cache"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o777)
    with pytest.raises(ModelError, match="other users can write 'open'"):
        check_private_folder(folder)
    folder.parent.chmod(0o1777)  # as /tmp: nobody renames what is not theirs
    assert check_private_folder(folder) == folder.resolve()


def test_a_sticky_folder_itself_is_no_private_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(ModelError, match="other users can write"):
        check_private_folder(tmp_path)


def test_links_are_refused(tmp_path: Path) -> None:
    real = make_private_folder(tmp_path / "real")
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(ModelError, match="is a link, expected a folder"):
        check_private_folder(tmp_path / "link")
    (real / "engine").write_bytes(b"x")
    (real / "linked").symlink_to(real / "engine")
    with pytest.raises(ModelError, match="is a link, expected a file"):
        check_private_file(real / "linked")
    check_private_file(real / "engine")


def test_files_others_can_write_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.write_bytes(b"x")
    path.chmod(0o666)
    with pytest.raises(ModelError, match="can be changed by another user"):
        check_private_file(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_what_belongs_to_another_user_is_refused(tmp_path: Path) -> None:
    folder = make_private_folder(tmp_path / "cache")
    (folder / "engine").write_bytes(b"x")
    os.chown(folder / "engine", 12345, 12345)
    with pytest.raises(ModelError, match="can be changed by another user"):
        check_private_file(folder / "engine")
    os.chown(folder, 12345, 12345)
    with pytest.raises(ModelError, match="'cache' on its path belongs to another user"):
        check_private_folder(folder)


def test_messages_name_no_path(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'absent' cannot be read") as caught:
        check_private_folder(tmp_path / "absent")
    assert str(tmp_path) not in str(caught.value)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelError, match="cannot be made") as caught:
        make_private_folder(tmp_path / "file" / "cache")
    assert str(tmp_path) not in str(caught.value)
