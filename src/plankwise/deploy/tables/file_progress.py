"""The progress of a file that is written block by block, and what is remembered of it once it is complete."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydantic

from plankwise.core.cache import cache_folder
from plankwise.core.files import write_json

PROGRESS = "progress.json"
HASH_LENGTH = 64  # hexadecimal digits of a SHA-256
RENAMED = {"look_ahead": "buffer_size", "most": "max_windows"}  # options in files of earlier versions


class FileProgress(pydantic.BaseModel):
    """The progress of a file.

    Attributes:
        made_of: what the file depends on, by name: hashes and options.
        rows: number of input rows that are done.
        predicted: number of rows in the output.
        skipped: number of rows left out, by fault.
        truncated: number of rows with a text that was cut.
        thinned: number of rows with a text of more windows than are read.
        tokens: of the texts that were predicted, before anything was cut.
        unread_tokens: those of these tokens that the model was not given.
        output_bytes: valid bytes of the output.
        error_bytes: valid bytes of the list of faults.
        whole: name of the complete file in the hidden folder, once there is one.
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

    @pydantic.field_validator("made_of", mode="before")
    @classmethod
    def _with_present_names(cls, made_of: Any) -> Any:
        if not isinstance(made_of, dict):
            return made_of
        return {RENAMED.get(name, name): cls._with_present_names(value) for name, value in made_of.items()}


class CompletionRecord:
    """The final progress of a complete file, kept in the cache; it is valid as long as the file is unchanged."""

    def __init__(self, path: Path) -> None:
        self._path, self._beside = path, path.with_name(f".{path.name}.{PROGRESS}")  # where earlier versions kept it
        name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[: HASH_LENGTH // 2]
        self._kept = cache_folder() / "predictions" / f"{name}.json"

    def write(self, progress: FileProgress) -> None:
        """Write the record. A failure is ignored: the file is complete, and only cannot be recognized as such."""
        with suppress(OSError):
            self._kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_json(self._kept, {"file": self._identity(), "progress": progress.model_dump()})
            self._beside.unlink(missing_ok=True)

    def read(self) -> FileProgress | None:
        """Return the progress, if there is a record of exactly this file."""
        try:
            if self._path.exists() and self._beside.exists():
                return FileProgress.model_validate_json(self._beside.read_bytes())
            kept = json.loads(self._kept.read_bytes())
            return FileProgress.model_validate(kept["progress"]) if kept["file"] == self._identity() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _identity(self) -> dict[str, int]:
        about = self._path.stat()
        return {"bytes": about.st_size, "modified_ns": about.st_mtime_ns}
