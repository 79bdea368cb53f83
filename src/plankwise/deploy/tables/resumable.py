"""A file that grows block by block and survives a kill at any moment: no block is lost, none is there twice.

Until it is whole, all lies in a hidden folder beside it. A block counts once the progress file, written in one step
after the block's bytes have reached the disk, says so; whatever stands behind that is cut off when the work goes on.
What a whole file was made of is kept in the cache, so that nothing but the file stays where the user wanted it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pydantic
from filelock import FileLock, Timeout

from plankwise.core.cache import cache_folder
from plankwise.core.errors import CheckpointError, OutputError
from plankwise.core.files import make_writable_folder, write_json
from plankwise.core.paths import LOCK, PARTIAL, check_file
from plankwise.core.records import TextsRead

OUTPUT, ERRORS, PROGRESS = "output", "errors.jsonl", "progress.json"
COUNTED = ("truncated", "thinned", "tokens", "unread_tokens")  # of what a block's texts hold
HASH_LENGTH = 64
Fault = Mapping[str, Any]  # `row`, `fault`, numbers, and why a row is malformed; no text


class Progress(pydantic.BaseModel):
    """How far a file has come.

    Attributes:
        made_of: what the file depends on, by name: hashes and options.
        rows: of the input, done.
        predicted: rows that are in the output.
        skipped: rows that are not, by fault.
        truncated: rows whose text was cut.
        thinned: rows whose text has more windows than are read.
        tokens: of the texts that were predicted, before anything was cut.
        unread_tokens: of these, the tokens that the model was not given.
        output_bytes: of the output, sound.
        error_bytes: of the list of faults, sound.
        whole: name of the finished file in the hidden folder, once there is one.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    made_of: dict[str, Any]
    rows: int = 0
    predicted: int = 0
    skipped: dict[str, int] = {}
    truncated: int = 0
    thinned: int = 0
    tokens: int = 0
    unread_tokens: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    whole: str | None = None


class Record:
    """What a whole file was made of, kept in the cache for as long as the file is the one that was written."""

    def __init__(self, path: Path) -> None:
        self._path, self._beside = path, path.with_name(f".{path.name}.{PROGRESS}")  # where it used to be
        name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[: HASH_LENGTH // 2]
        self._kept = cache_folder() / "predictions" / f"{name}.json"

    def write(self, progress: Progress) -> None:
        """Keep it; where that fails, the file is whole all the same, and only not known to be."""
        with suppress(OSError):
            self._kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_json(self._kept, {"file": self._identity(), "progress": progress.model_dump()})
            self._beside.unlink(missing_ok=True)

    def read(self) -> Progress | None:
        """Return it, if there is one of this very file."""
        try:
            if self._path.exists() and self._beside.exists():
                return Progress.model_validate_json(self._beside.read_bytes())
            kept = json.loads(self._kept.read_bytes())
            return Progress.model_validate(kept["progress"]) if kept["file"] == self._identity() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _identity(self) -> dict[str, int]:
        about = self._path.stat()
        return {"bytes": about.st_size, "modified_ns": about.st_mtime_ns}


class Unfinished:
    """The file while it is made; a context manager, which one process at a time can enter."""

    def __init__(self, path: Path, made_of: Mapping[str, Any], resume: bool, harmless: Sequence[str] = ()) -> None:
        """Look at what is there; nothing is begun before it is entered.

        Args:
            path: of the file; its list of faults will stand beside it.
            made_of: what the file depends on, as JSON can hold it.
            resume: go on with what is there, or begin.
            harmless: names in `made_of` that may change as long as no row was skipped or cut.

        Raises:
            OutputError: if it is there, or a part of it, and is not to be gone on with.
            CheckpointError: if what is there was made of something else, or is damaged.
        """
        self.path, self._folder = path, path.with_name(f".{path.name}{PARTIAL}")
        self.faults_path = path.with_name(f"{path.name}.{ERRORS}")
        self._record = Record(path)
        self._lock = FileLock(self._folder / LOCK)
        self._files: dict[str, IO[bytes]] = {}
        self._seen, made = self._found(), json.loads(json.dumps(made_of))
        if self._seen is None:
            self._refuse_what_is_there()
        elif not resume:
            self._refuse_to_overwrite()
        else:
            self._check(self._seen, made, harmless)
        self.progress = (self._seen or Progress(made_of=made)).model_copy(update={"made_of": made})
        if self.is_whole:
            self._record.write(self.progress)
            # a kill may have left the empty folder
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def is_whole(self) -> bool:
        """Whether the file was finished before and is in its place."""
        return self.progress.whole is not None and not (self._folder / PROGRESS).exists()

    def __enter__(self) -> Unfinished:
        """Begin, or go on behind the last block that counts."""
        make_writable_folder(self._folder)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise OutputError(f"another process is writing to {self.path}") from None
        if self._found() != self._seen or (self._seen is None and self.path.exists()):
            self._lock.release()
            raise OutputError(f"another process has written to {self.path} just now; try again")
        if self.progress.whole is None:
            sizes = {OUTPUT: self.progress.output_bytes, ERRORS: self.progress.error_bytes}
            self._files = {name: self._reopened(name, size) for name, size in sizes.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep what is done; where nothing is, leave nothing behind."""
        for file in self._files.values():
            file.close()
        self._lock.release()
        if self.progress.rows == 0 or self.is_whole:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, data: bytes, rows: int, predicted: int, read: TextsRead, faults: Sequence[Fault]) -> None:
        """Add a block of the output and of the list of faults, for so many rows of the input and what was read of them.

        Raises:
            OutputError: if it cannot be written, as on a full disk.
        """
        listed = "".join(json.dumps(dict(each)) + "\n" for each in faults).encode()
        before = self.progress
        with self._writing():
            _append(self._files[OUTPUT], data)
            _append(self._files[ERRORS], listed)
            self._save(
                rows=before.rows + rows,
                predicted=before.predicted + predicted,
                skipped=dict(Counter(before.skipped) + Counter(str(each["fault"]) for each in faults)),
                **{name: getattr(before, name) + getattr(read, name) for name in COUNTED},
                output_bytes=before.output_bytes + len(data),
                error_bytes=before.error_bytes + len(listed),
            )

    def finish(self, complete: Callable[[Path], Path]) -> None:
        """Complete the file and put it into its place, with the list of faults if there are any.

        Args:
            complete: makes the whole file of that of all blocks, in the same folder, and leaves this as it is.
        """
        with self._writing():
            if self.progress.whole is None:
                whole = complete(self._folder / OUTPUT)
                with whole.open("r+b") as file:
                    os.fsync(file.fileno())
                self._save(whole=whole.name)
            # A kill between these leaves the progress file, which goes last: the rest is done on resuming.
            moves = {ERRORS: self.faults_path, str(self.progress.whole): self.path}
            for name, place in moves.items():
                if (self._folder / name).exists() and not (name == ERRORS and self.progress.error_bytes == 0):
                    (self._folder / name).replace(place)
            self._record.write(self.progress)
            (self._folder / PROGRESS).unlink()

    def _save(self, **changes: Any) -> None:
        changed = self.progress.model_copy(update=changes)
        write_json(self._folder / PROGRESS, changed.model_dump())
        self.progress = changed

    def _found(self) -> Progress | None:
        """Read how far the file has come, if it was begun."""
        at = self._folder / PROGRESS
        if not at.exists():
            return self._record.read()
        try:
            return Progress.model_validate_json(check_file(at).read_bytes())
        except (OSError, pydantic.ValidationError):
            raise CheckpointError(f"{at} is damaged; remove it to begin anew") from None

    def _refuse_what_is_there(self) -> None:
        for path in (self.path, self.faults_path):
            if path.exists():
                raise OutputError(f"{path} is there already, of unknown making; remove it or choose another")

    def _refuse_to_overwrite(self) -> None:
        if (self._folder / PROGRESS).exists():
            raise OutputError(f"{self.path} was begun; --resume goes on with it, without {self._folder} it begins anew")
        raise OutputError(f"{self.path} is there already; remove it or choose another")

    def _check(self, found: Progress, made_of: dict[str, Any], harmless: Sequence[str]) -> None:
        free = set() if found.skipped or found.truncated else set(harmless)
        names = sorted((found.made_of.keys() | made_of.keys()) - free)
        differing = [name for name in names if found.made_of.get(name) != made_of.get(name)]
        if differing:
            shown = ", ".join(_difference(name, found.made_of.get(name), made_of.get(name)) for name in differing)
            there = self._folder if (self._folder / PROGRESS).exists() else self.path
            raise CheckpointError(f"cannot go on with {self.path}: {shown}; remove {there} to begin anew")

    def _reopened(self, name: str, size: int) -> IO[bytes]:
        path = self._folder / name
        if size and (not path.exists() or path.stat().st_size < size):
            raise CheckpointError(f"{path} is shorter than what was written; remove {self._folder} to begin anew")
        file = path.open("ab")
        file.truncate(size)
        return file

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from None


def _append(file: IO[bytes], data: bytes) -> None:
    if data:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _difference(name: str, before: Any, now: Any) -> str:
    """Say what differs, in full unless it is a hash."""
    if len(str(before)) >= HASH_LENGTH:
        return f"the {name} differs"
    return f"{name} was {json.dumps(before)} and is {json.dumps(now)}"
