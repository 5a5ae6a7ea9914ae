"""Files appear whole or not at all, whatever else writes there and whenever the process ends."""

import errno
import os
import subprocess
import sys
import time

import pytest
from PIL import Image
from tiny_models import GOLDEN

from ttsvar_core import atomic
from ttsvar_core.atomic import replacing, write, write_picture

ROOT = GOLDEN.parent.parent
HALF_WRITTEN = """
import sys, time
from ttsvar_core.atomic import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""
AGAIN_AND_AGAIN = """
import sys
from ttsvar_core.atomic import write
for number in range(int(sys.argv[3])):
    write(sys.argv[1], sys.argv[2] * 300_000)
"""


def start(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE)


def test_text_bytes_and_pictures(tmp_path):
    write(tmp_path / "text", "Wörter\n")
    write(tmp_path / "bytes", b"\x00\xff")
    write_picture(tmp_path / "picture.png", Image.new("RGB", (2, 3), "red"))
    assert (tmp_path / "text").read_bytes() == b"W\xc3\xb6rter\n" and (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    assert Image.open(tmp_path / "picture.png").size == (2, 3) and len(list(tmp_path.iterdir())) == 3


def test_what_raises_while_writing_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    write(tmp_path / "x", "old")
    for stop in (ValueError, KeyboardInterrupt):
        with pytest.raises(stop), replacing(tmp_path / "x") as file:
            file.write(b"new")
            raise stop
    assert (tmp_path / "x").read_text() == "old" and list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_two_processes_writing_one_file_never_show_a_part_of_it(tmp_path):
    writers = [start(AGAIN_AND_AGAIN, tmp_path / "x", letter, 40) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if (tmp_path / "x").exists():
            text = (tmp_path / "x").read_text()
            seen.add((len(text), len(set(text))))
        time.sleep(0.001)
    assert seen == {(300_000, 1)} and [writer.returncode for writer in writers] == [0, 0]
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_the_next_writer_sweeps_what_a_killed_one_left_and_nothing_that_is_being_written(tmp_path):
    killed, living = (start(HALF_WRITTEN, tmp_path / name) for name in "ab")
    for one in (killed, living):
        assert one.stdout.readline() == b"writing\n"
    write(tmp_path / "c", "x")
    assert len(list(tmp_path.iterdir())) == 3
    killed.kill()
    killed.wait()
    write(tmp_path / "c", "x")
    assert len(list(tmp_path.iterdir())) == 2
    living.kill()
    living.wait()
    write(tmp_path / "c", "x")
    assert list(tmp_path.iterdir()) == [tmp_path / "c"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_is_one_line_that_names_the_file_and_the_remedy(tmp_path, monkeypatch, failing):
    write(tmp_path / "x", "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, failing, full)
    with pytest.raises(OSError, match=r"x cannot be written: No space left on device\. Make room") as caught:
        write(tmp_path / "x", "new")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert (tmp_path / "x").read_text() == "old" and list(tmp_path.iterdir()) == [tmp_path / "x"]


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_file_beyond_what_the_system_allows(tmp_path):
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n" + AGAIN_AND_AGAIN
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x", "a", "1"], cwd=ROOT, capture_output=True, text=True)
    assert "x cannot be written: File too large. Make room" in done.stderr.splitlines()[-1] and not list(tmp_path.iterdir())


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot be written: No such file or directory"):
        write(tmp_path / "nowhere" / "x", "text")


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_a_file_system_without_locks_is_written_and_not_swept(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(atomic.fcntl, "flock", refused)
    other = tmp_path / ".ttsvar-0.part"
    other.touch()
    write(tmp_path / "x", "text")
    assert set(tmp_path.iterdir()) == {other, tmp_path / "x"}


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
@pytest.mark.parametrize("moment", ["before the lock", "after the lock"])
def test_a_sweep_between_making_and_locking_a_file_costs_another_try(tmp_path, monkeypatch, moment):
    lock, calls = atomic._lock, []

    def swept(file):
        calls.append(file.name)
        if len(calls) == 1:
            os.unlink(file.name)
            if moment == "before the lock":
                raise BlockingIOError
        lock(file)

    monkeypatch.setattr(atomic, "_lock", swept)
    write(tmp_path / "x", "text")
    assert len(set(calls)) == 2 and list(tmp_path.iterdir()) == [tmp_path / "x"]


@pytest.mark.skipif(atomic.fcntl is None, reason="pretends the other system")
def test_without_locks_of_this_kind_what_can_be_deleted_is_a_leftover(tmp_path, monkeypatch):
    """On Windows, where a file that is open cannot be deleted."""
    monkeypatch.setattr(atomic, "fcntl", None)
    (tmp_path / ".ttsvar-0.part").touch()
    write(tmp_path / "x", "text")
    assert list(tmp_path.iterdir()) == [tmp_path / "x"] and (tmp_path / "x").read_text() == "text"
