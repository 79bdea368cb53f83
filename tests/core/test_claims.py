"""Only one process at a time holds a claim, and a dead one holds none."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from plankwise.core.claims import ExclusiveClaim, is_claimed
from plankwise.core.errors import OutputError

HOLDER = """
import sys
from pathlib import Path
from plankwise.core.claims import ExclusiveClaim
claim = ExclusiveClaim(Path(sys.argv[1]), Path("there"))  # a claim ends with its object
claim.take()
print("taken", flush=True)
sys.stdin.read()
"""


def test_a_second_claim_is_refused_until_the_first_is_released(tmp_path: Path) -> None:
    lock, place = tmp_path / "lock", tmp_path / "place"
    with ExclusiveClaim(lock, place):
        assert is_claimed(lock)
        with pytest.raises(OutputError, match=f"another process is writing to {place}$"), ExclusiveClaim(lock, place):
            pass
        assert is_claimed(lock)  # a refused claim takes nothing away
    assert not lock.exists()
    with ExclusiveClaim(lock, place, removes_lock=False):
        pass
    assert lock.exists()
    assert not is_claimed(lock)


def test_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        assert is_claimed(lock)
        holder.kill()
        holder.wait()
        ExclusiveClaim(lock, tmp_path).take()


def test_who_waits_gets_it_although_the_lock_was_removed(tmp_path: Path) -> None:
    first, second = (ExclusiveClaim(tmp_path / "lock", tmp_path) for _ in range(2))
    first.take()
    done = threading.Event()

    def wait() -> None:
        second.wait()
        second.release()
        done.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not done.wait(0.1)
    first.release()
    assert done.wait(10)
    waiting.join()
    second.release()  # without a claim, nothing


def test_a_lock_that_cannot_be_made_is_an_operating_system_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not is_claimed(tmp_path / "file" / "lock")
    with pytest.raises(OSError, match="file"):
        ExclusiveClaim(tmp_path / "file" / "lock", tmp_path).take()
