"""The folder of a run: whose it is, which stages in it are whole, and the lock against a second process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydantic
import yaml
from filelock import FileLock, Timeout
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.distributed import is_main_process, wait_for_everyone
from plankwise.core.documents import read_yaml
from plankwise.core.errors import CheckpointError, OutputError, RecipeError
from plankwise.core.files import atomic_folder, contents, make_writable_folder, read_text, write_json, write_text
from plankwise.core.paths import PARTIAL, check_folder, found_at, remove, undone_if_refused
from plankwise.core.records import FILE_NAME, Cost, Entry, Record, read_record
from plankwise.encoder.checkpoint import write_model
from plankwise.encoder.cost import compressed_size_bytes, count_parameters, linear_flops_per_token, weights_size_bytes
from plankwise.training.checkpoints import SEAL
from plankwise.training.fit import CURVES

RECIPE, STAGE, WORK, LOCK = "recipe.yaml", "stage.json", ".work", ".lock"
Made = tuple[PreTrainedModel, PreTrainedTokenizerBase, Entry]


class RunFolder:
    """One run's folder. Only the main process writes; a stage is there whole or not at all."""

    def __init__(self, path: Path, recipe: dict[str, Any]) -> None:
        self.path, self._recipe = path, recipe

    @contextmanager
    def claimed(self, resume: bool) -> Iterator[None]:
        """Take the folder for this recipe, for as long as the context lasts.

        Raises:
            OutputError: if it cannot be written to, holds something else, is in use, or holds this very run and
                `resume` was not asked for.
        """
        if not is_main_process():
            wait_for_everyone()
            yield
            return
        self.refuse_taken(resume)
        found = found_at(self.path)
        make_writable_folder(self.path)
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise OutputError(f"another process is writing to {self.path}") from None
        try:
            with undone_if_refused(found, self._holds_work):
                self._remove_partial()
                write_text(self.path / RECIPE, yaml.safe_dump(self._recipe, sort_keys=False, allow_unicode=True))
                wait_for_everyone()
                yield
        finally:
            (self.path / LOCK).unlink(missing_ok=True)
            lock.release()

    def _holds_work(self) -> bool:
        """Return whether anything has been trained: a stage that is whole, or a checkpoint of one."""
        return any(next(self.path.rglob(name), None) is not None for name in (STAGE, SEAL))

    def _remove_partial(self) -> None:
        """Remove what a killed process was writing; whoever holds the lock is alone here."""
        for folder in (self.path, self.path / "steps"):
            for left in folder.glob(f".*{PARTIAL}"):
                remove(left)

    def refuse_taken(self, resume: bool) -> None:
        """Refuse a folder that cannot be this run's; nothing is written.

        Raises:
            OutputError: if it cannot be written to, holds something else, or holds this very run and `resume` was not
                asked for.
        """
        check_folder(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"cannot write to {self.path}: it is a file")
        try:
            present = contents(self.path) - {LOCK}
        except OSError as error:
            raise OutputError(f"cannot write to {self.path}: {error.strerror}") from None
        if not present:
            return
        if RECIPE not in present:
            raise OutputError(f"{self.path} holds files that are not of a run; choose an empty or a new folder")
        try:
            other = read_yaml(self.path / RECIPE)[1]
        except RecipeError:
            other = None
        if other != self._recipe:
            names = _differing(other, self._recipe)
            raise OutputError(f"{self.path} holds another recipe's run (it differs in {names}); choose another folder")
        if not resume:
            raise OutputError(f"{self.path} holds a run of this recipe already; add --resume to go on with it")

    def has(self, name: str) -> bool:
        """Tell whether a stage is whole."""
        return (self.path / name / STAGE).exists()

    def stage(self, name: str, make: Callable[[Path], Made]) -> Entry:
        """Run `make` with a folder for its checkpoints and keep what it made, unless that is done already."""
        if not self.has(name):
            work = self.path / WORK / name
            model, tokenizer, entry = make(work)
            if is_main_process():
                with atomic_folder(self.path / name) as temporary:
                    write_model(model, tokenizer, temporary)
                    if (work / CURVES).exists():
                        shutil.copytree(work / CURVES, temporary / CURVES)
                    cost = cost_of(model, temporary, entry.train_seconds)
                    write_json(temporary / STAGE, entry.model_copy(update={"cost": cost}).model_dump(mode="json"))
                shutil.rmtree(work, ignore_errors=True)
            wait_for_everyone()
        return read_entry(self.path / name)

    def copy_model(self, source: str, target: str) -> None:
        """Copy a stage's model, without the stage's own file, to where users look for it."""
        if is_main_process():
            with atomic_folder(self.path / target) as temporary:
                shutil.copytree(self.path / source, temporary, dirs_exist_ok=True, ignore=lambda *_: {STAGE, CURVES})

    def adopt(self, source: Path, name: str) -> None:
        """Copy a finished stage of another run into this one."""
        if is_main_process() and not self.has(name):
            with atomic_folder(self.path / name) as temporary:
                shutil.copytree(source, temporary, dirs_exist_ok=True)
        wait_for_everyone()

    def tidy(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self.path / WORK, ignore_errors=True)

    def known(self) -> Record | None:
        """Read what an earlier part of this run recorded."""
        return read_record(self.path) if (self.path / FILE_NAME).exists() else None


def cost_of(model: PreTrainedModel, folder: Path, seconds: float) -> Cost:
    """Measure what a model that is saved in `folder` costs."""
    return Cost(
        parameters=count_parameters(model),
        size_bytes=weights_size_bytes(folder),
        compressed_bytes=compressed_size_bytes(folder),
        linear_flops_per_token=linear_flops_per_token(model),
        train_seconds=seconds,
    )


def read_entry(folder: Path) -> Entry:
    """Read what a stage did.

    Raises:
        CheckpointError: if `folder` is no stage of a run.
    """
    try:
        return Entry.model_validate_json(read_text(folder / STAGE))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a finished stage of a run: {STAGE} is missing") from None
    except (OSError, pydantic.ValidationError) as error:
        raise CheckpointError(
            f"{folder / STAGE} is damaged: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}"
        ) from None


def _differing(one: Any, other: dict[str, Any]) -> str:
    if not isinstance(one, dict):
        return "everything"
    return ", ".join(key for key in {**one, **other} if one.get(key) != other.get(key))
