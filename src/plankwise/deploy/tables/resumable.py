"""A file that is written block by block and survives a kill at any moment: no block is lost or written twice.

Until the file is complete, everything is in a hidden folder beside it. A block counts once the progress file includes
it, which is written in one step after the block's bytes are on the disk. On resuming, bytes after the last such block
are cut off. What a complete file was made of is kept in the cache, so that only the file itself stays where the user
wanted it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pydantic

from plankwise.core.claims import ExclusiveClaim
from plankwise.core.errors import CheckpointError, OutputError
from plankwise.core.files import make_writable_folder, write_json
from plankwise.core.paths import LOCK, PARTIAL, check_file
from plankwise.core.records import TextsRead
from plankwise.deploy.tables.file_progress import HASH_LENGTH, PROGRESS, CompletionRecord, FileProgress

OUTPUT, ERRORS = "output", "errors.jsonl"
COUNTED = ("truncated", "thinned", "tokens", "unread_tokens")  # summed over the blocks, from `TextsRead`
Fault = Mapping[str, Any]  # `row`, `fault`, numbers, and why a row is malformed; never text


class ResumableFile:
    """A file while it is written; a context manager that one process at a time can enter."""

    def __init__(self, path: Path, made_of: Mapping[str, Any], resume: bool, harmless: Sequence[str] = ()) -> None:
        """Read the progress of the file, if it was begun; nothing is written before the context is entered.

        Args:
            path: of the file; its list of faults will be beside it.
            made_of: what the file depends on, as JSON can hold it.
            resume: continue a file that was begun; otherwise one that exists is an error.
            harmless: names in `made_of` that may change as long as no row was skipped or cut.

        Raises:
            OutputError: if the file, or a part of it, exists already and must not be continued.
            CheckpointError: if it was made of something else, or is damaged.
        """
        self.path, self._folder = path, path.with_name(f".{path.name}{PARTIAL}")
        self.faults_path = path.with_name(f"{path.name}.{ERRORS}")
        self._record = CompletionRecord(path)
        self._lock = ExclusiveClaim(self._folder / LOCK, self.path, removes_lock=False)
        self._files: dict[str, IO[bytes]] = {}
        self._seen, made = self._found(), json.loads(json.dumps(made_of))
        if self._seen is None:
            self._refuse_what_is_there()
        elif not resume:
            self._refuse_to_overwrite()
        else:
            self._check(self._seen, made, harmless)
        self.progress = (self._seen or FileProgress(made_of=made)).model_copy(update={"made_of": made})
        if self.is_whole:
            self._record.write(self.progress)
            # A kill may have left the empty folder.
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def is_whole(self) -> bool:
        """Whether the file is complete and in its place."""
        return self.progress.whole is not None and not (self._folder / PROGRESS).exists()

    def __enter__(self) -> ResumableFile:
        """Begin, or continue after the last block that counts."""
        make_writable_folder(self._folder)
        self._lock.take()
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
        """Keep what is done; if that is nothing, remove the hidden folder."""
        for file in self._files.values():
            file.close()
        self._lock.release()
        if self.progress.rows == 0 or self.is_whole:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(
        self,
        data: bytes,
        *,
        rows: int = 0,
        predicted: int = 0,
        read: TextsRead | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        """Append a block.

        Args:
            data: bytes of the output.
            rows: of the input that the block covers.
            predicted: rows in `data`.
            read: how much of their texts the model was given.
            faults: of the other rows.

        Raises:
            OutputError: if it cannot be written, as on a full disk.
        """
        listed = "".join(json.dumps(dict(each)) + "\n" for each in faults).encode()
        before, texts = self.progress, read or TextsRead()
        with self._writing():
            _append(self._files[OUTPUT], data)
            _append(self._files[ERRORS], listed)
            self._save(
                rows=before.rows + rows,
                predicted=before.predicted + predicted,
                skipped=dict(Counter(before.skipped) + Counter(str(each["fault"]) for each in faults)),
                **{name: getattr(before, name) + getattr(texts, name) for name in COUNTED},
                output_bytes=before.output_bytes + len(data),
                error_bytes=before.error_bytes + len(listed),
            )

    def finish(self, complete: Callable[[Path], Path]) -> None:
        """Complete the file and move it into its place, with the list of faults if there are any.

        Args:
            complete: turns the file of all blocks, which it does not change, into the final one in the same folder, and
                returns its path.
        """
        with self._writing():
            if self.progress.whole is None:
                whole = complete(self._folder / OUTPUT)
                with whole.open("r+b") as file:
                    os.fsync(file.fileno())
                self._save(whole=whole.name)
            # The progress file goes last: if the process is killed before, resuming does the rest.
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

    def _found(self) -> FileProgress | None:
        """Return the progress of the file, if it was begun."""
        at = self._folder / PROGRESS
        if not at.exists():
            return self._record.read()
        try:
            return FileProgress.model_validate_json(check_file(at).read_bytes())
        except (OSError, pydantic.ValidationError):
            raise CheckpointError(f"{at} is damaged; remove it to start again") from None

    def _refuse_what_is_there(self) -> None:
        for path in (self.path, self.faults_path):
            if path.exists():
                raise OutputError(f"{path} exists already, from an unknown source; remove it or choose another")

    def _refuse_to_overwrite(self) -> None:
        if (self._folder / PROGRESS).exists():
            raise OutputError(f"{self.path} was begun; --resume continues it, or remove {self._folder} to start again")
        raise OutputError(f"{self.path} exists already; remove it or choose another")

    def _check(self, found: FileProgress, made_of: dict[str, Any], harmless: Sequence[str]) -> None:
        free = set() if found.skipped or found.truncated else set(harmless)
        names = sorted((found.made_of.keys() | made_of.keys()) - free)
        differing = [name for name in names if found.made_of.get(name) != made_of.get(name)]
        if differing:
            shown = ", ".join(_difference(name, found.made_of.get(name), made_of.get(name)) for name in differing)
            there = self._folder if (self._folder / PROGRESS).exists() else self.path
            raise CheckpointError(f"cannot resume {self.path}: {shown}; remove {there} to start again")

    def _reopened(self, name: str, size: int) -> IO[bytes]:
        path = self._folder / name
        if size and (not path.exists() or path.stat().st_size < size):
            raise CheckpointError(f"{path} is shorter than what was written; remove {self._folder} to start again")
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
    """Describe a difference, in full unless it is between hashes."""
    if len(str(before)) >= HASH_LENGTH:
        return f"the {name} differs"
    return f"{name} was {json.dumps(before)} and is {json.dumps(now)}"
