"""Files written whole or through, leftovers, and small files that are read whole."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from nas.files import check_writable, drop_partials, read_small, write_whole


def write(target: Path, text: str = "new") -> None:
    write_whole(target, lambda file: file.write_text(text))


def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    target.chmod(0o640)
    write(target)
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("new", 0o640)


def test_a_new_file_has_the_mode_of_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("old")
    (tmp_path / "link").symlink_to("other/file")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "other" / "file").read_text() == "new"
    (tmp_path / "dangling").symlink_to("other/later")
    write(tmp_path / "dangling")
    assert (tmp_path / "other" / "later").read_text() == "new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["dangling", "file", "later", "link", "other"]


def test_a_device_is_written_to(tmp_path: Path) -> None:
    for name in ("/dev/null", "/dev/full"):
        before = Path(name).stat().st_rdev
        if name == "/dev/full":
            with pytest.raises(OSError, match="No space left"):
                write(Path(name))
        else:
            write(Path(name))
        assert Path(name).stat().st_rdev == before


def test_a_pipe_is_written_to_when_somebody_reads_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="No such device"):  # else it would wait for ever
        write(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            write(pipe, "x" * 200_000)  # more than a pipe holds
            break
        except OSError:  # the reader is not there yet
            time.sleep(0.01)
    reader.join(20)
    assert read == ["x" * 200_000]
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_place_is_tried_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "there.txt").write_text("old")
    for name in ("there.txt", "new.txt", "/dev/null"):
        check_writable(tmp_path / name)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there.txt", "old")]
    for name in ("no/new.txt", "/proc/new.txt", "there.txt/new.txt"):
        with pytest.raises(OSError, match=r"No such file|Not a directory"):
            check_writable(tmp_path / name)


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail(file: Path) -> None:
        file.write_text("half")
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_whole(target, fail)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_leftovers_of_processes_that_were_killed_are_deleted(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    names = {pid: tmp_path / f".bundle.{pid}.partial" for pid in (ended.pid, os.getpid(), os.getppid(), 10**9)}
    for folder in names.values():
        folder.mkdir()
        (folder / "file").touch()
        os.utime(folder, (0, 0))
    (tmp_path / ".bundle.1234567.partial").mkdir()  # of another machine, perhaps, and new
    (tmp_path / ".other.1234567.partial").touch()
    drop_partials(tmp_path, ".bundle.*.partial")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f".bundle.{os.getppid()}.partial", ".bundle.1234567.partial", ".other.1234567.partial"]
    )


def test_small_files(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("ä")
    assert read_small(file) == "ä"
    with pytest.raises(OSError, match="has more than 1 bytes"):
        read_small(file, 1)
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="is no regular file"):
            read_small(path)
    file.write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_small(file)
