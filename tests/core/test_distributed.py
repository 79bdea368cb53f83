"""What one process of a run meets reaches all of them; one process alone meets only itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from plankwise.core.distributed import agree, fail_together, is_main_process, on_main_process, process_count
from plankwise.core.errors import DataError, OutputError, TrainingError
from processes import run_ranks

SCRIPT = """
import os, sys
from pathlib import Path
from plankwise.core.distributed import agree, fail_together, is_main_process, on_main_process, process_count
from plankwise.core.errors import DataError, PlankwiseError

rank = int(os.environ["RANK"])
assert (process_count(), is_main_process()) == (2, rank == 0)
agree("alike", "the draws")
on_main_process(lambda: Path("written").write_text(str(rank)), Path("written"))
assert Path("written").read_text() == "0"
for collective in (
    lambda: agree(str(rank), "the draws"),
    lambda: fail_together(DataError("of rank 1") if rank == 1 else None),
    lambda: on_main_process(lambda: Path("no/file").write_text(""), Path("no")),
):
    try:
        collective()
    except PlankwiseError as error:
        print(type(error).__name__, error, file=sys.stderr)
"""


def test_two_processes_fail_together(tmp_path: Path) -> None:
    for code, said in run_ranks(["-c", SCRIPT], tmp_path):
        assert code == 0, said
        assert said.splitlines()[-3:] == [
            "TrainingError the draws differ between processes",
            "DataError of rank 1",
            "OutputError cannot write to no: No such file or directory",
        ]


def test_one_process_is_the_main_one_and_raises_its_own_errors(tmp_path: Path) -> None:
    assert (process_count(), is_main_process()) == (1, True)
    agree("anything", "the draws")
    fail_together(None)
    with pytest.raises(DataError, match="of this one"):
        fail_together(DataError("of this one"))

    def refuse() -> None:
        raise TrainingError("as it is")

    with pytest.raises(TrainingError, match="as it is"):
        on_main_process(refuse, tmp_path)
    with pytest.raises(OutputError, match=f"cannot write to {tmp_path}: Is a directory"):
        on_main_process(lambda: tmp_path.write_text(""), tmp_path)
