"""The folder of a run: which recipe it belongs to, which stages are complete, and the claim that keeps others out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pydantic
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.claims import ExclusiveClaim
from plankwise.core.distributed import is_main_process, on_main_process
from plankwise.core.errors import CheckpointError, OutputError
from plankwise.core.files import (
    atomic_folder,
    contents,
    link_folder,
    make_writable_folder,
    read_text,
    write_json,
    write_text,
)
from plankwise.core.paths import PARTIAL, check_folder, found_at, remove, undone_if_refused
from plankwise.core.records import FILE_NAME, Cost, Entry, Record, read_record
from plankwise.encoder.checkpoint import write_model
from plankwise.encoder.cost import compressed_size_bytes, count_parameters, linear_flops_per_token, weights_size_bytes
from plankwise.run.contents import BASELINE as BASELINE
from plankwise.run.contents import PRETRAINED as PRETRAINED
from plankwise.run.contents import RECIPE as RECIPE
from plankwise.run.contents import STAGE as STAGE
from plankwise.run.contents import check_rerun, differing, recipe_in, remove_model, remove_results
from plankwise.training.checkpoints import SEAL
from plankwise.training.fit import CURVES

WORK, LOCK = ".work", ".lock"
Made = tuple[PreTrainedModel, PreTrainedTokenizerBase, Entry]


class RunFolder:
    """The folder of one run. Only the main process writes; a stage is either complete or absent.

    Args:
        path: of the folder.
        recipe: as plain values; a folder belongs to one recipe.
    """

    def __init__(self, path: Path, recipe: dict[str, Any]) -> None:
        self.path, self._recipe = path, recipe

    @contextmanager
    def claimed(self, resume: bool, from_step: int | None = None) -> Iterator[None]:
        """Claim the folder for this recipe while the context lasts. All processes have to enter it.

        Args:
            resume: whether the folder may hold an unfinished run of this recipe.
            from_step: number of the step from which on the recipe of the run in the folder may differ. The folder then
                belongs to the other recipe until `rewind` is called.

        Raises:
            OutputError: in every process, if the folder cannot be written to, holds something else, is in use, or holds
                this very run and `resume` is false.
        """
        with ExitStack() as stack:
            on_main_process(lambda: self._claim(stack, resume, from_step), self.path)
            yield

    def _claim(self, stack: ExitStack, resume: bool, from_step: int | None) -> None:
        """Claim the folder in this process, and leave to `stack` what has to be undone."""
        self._refuse_taken(resume, from_step)
        found = found_at(self.path)
        make_writable_folder(self.path)
        stack.enter_context(ExclusiveClaim(self.path / LOCK, self.path))
        stack.enter_context(undone_if_refused(found, self._holds_work))
        self._remove_partial()
        if from_step is None:
            self._write_recipe()

    def _write_recipe(self) -> None:
        write_text(self.path / RECIPE, yaml.safe_dump(self._recipe, sort_keys=False, allow_unicode=True))

    def _holds_work(self) -> bool:
        """Return whether anything has been trained: a complete stage, or a checkpoint of one."""
        return any(next(self.path.rglob(name), None) is not None for name in (STAGE, SEAL))

    def _remove_partial(self) -> None:
        """Remove what a killed process was writing. Under the claim, no other process can be writing it."""
        for folder in (self.path, self.path / "steps"):
            for left in folder.glob(f".*{PARTIAL}"):
                remove(left)

    def refuse_taken(self, resume: bool, from_step: int | None = None) -> None:
        """Refuse a folder that cannot be this run's; nothing is written. All processes have to call this.

        Args:
            resume: whether the folder may hold an unfinished run of this recipe.
            from_step: as for `claimed`.

        Raises:
            OutputError: in every process, if the folder cannot be written to, holds something else, or holds this very
                run and `resume` is false.
        """
        on_main_process(lambda: self._refuse_taken(resume, from_step), self.path)

    def _refuse_taken(self, resume: bool, from_step: int | None) -> None:
        check_folder(self.path)
        if from_step is not None:
            check_rerun(self.path, self._recipe, from_step)
            return
        present = contents(self.path) - {LOCK}
        if not present:
            return
        if RECIPE not in present:
            raise OutputError(f"{self.path} holds files that are not of a run; choose an empty or a new folder")
        other = recipe_in(self.path)
        if other != self._recipe:
            names = ", ".join(differing(other, self._recipe)) or "everything"
            raise OutputError(f"{self.path} holds another recipe's run (it differs in {names}); choose another folder")
        if not resume:
            raise OutputError(f"{self.path} holds a run of this recipe already; add --resume to continue it")

    def has(self, name: str) -> bool:
        """Return whether a stage is complete."""
        return (self.path / name / STAGE).exists()

    def stage(self, name: str, make: Callable[[Path], Made]) -> Entry:
        """Run one stage and save its model, unless that was done before.

        Args:
            name: of the stage's folder.
            make: trains or compresses; it gets a folder for its checkpoints, which goes when the stage is complete.

        Returns:
            What the stage did, with the cost of its model.
        """
        if not self.has(name):
            work = self.path / WORK / name
            model, tokenizer, entry = make(work)
            on_main_process(lambda: self._save(name, model, tokenizer, entry), self.path)
            if is_main_process():
                shutil.rmtree(work, ignore_errors=True)
        return read_entry(self.path / name)

    def _save(self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, entry: Entry) -> None:
        curves = self.path / WORK / name / CURVES
        with atomic_folder(self.path / name) as temporary:
            write_model(model, tokenizer, temporary)
            if curves.exists():
                shutil.copytree(curves, temporary / CURVES)
            cost = cost_of(model, temporary, entry.train_seconds)
            write_json(temporary / STAGE, entry.model_copy(update={"cost": cost}).model_dump(mode="json"))

    def drop_model(self, name: str) -> None:
        """Remove the model of a complete stage; its record and curves stay. All processes have to call this."""
        on_main_process(lambda: remove_model(self.path / name), self.path)

    def rewind(self, from_step: int, record: Record) -> None:
        """Remove the steps from one on, and what follows them; the folder then belongs to this recipe.

        All processes have to call this. A kill leaves a folder from which either recipe can go on.

        Args:
            from_step: number of the first step to remove.
            record: of the new run, without results.
        """
        on_main_process(lambda: self._rewind(from_step, record), self.path)

    def _rewind(self, from_step: int, record: Record) -> None:
        record.write(self.path)  # first: a record with results would pass for a finished run
        remove_results(self.path, from_step)
        self.tidy()
        self._write_recipe()

    def copy_model(self, source: str, target: str) -> None:
        """Copy a stage's model, without its record and curves, to the folder where users look for it."""
        on_main_process(lambda: self._copy(self.path / source, target, {STAGE, CURVES}), self.path)

    def adopt(self, source: Path, name: str) -> None:
        """Take over a complete stage of another run, as hard links where possible, unless it is here already."""
        on_main_process(lambda: None if self.has(name) else self._link(source, name), self.path)

    def _link(self, source: Path, target: str) -> None:
        with atomic_folder(self.path / target) as temporary:
            link_folder(source, temporary)

    def _copy(self, source: Path, target: str, without: set[str]) -> None:
        with atomic_folder(self.path / target) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True, ignore=lambda *_: without)

    def tidy(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self.path / WORK, ignore_errors=True)

    def known(self) -> Record | None:
        """Return the record of this run so far, or `None` if there is none."""
        return read_record(self.path) if (self.path / FILE_NAME).exists() else None


def cost_of(model: PreTrainedModel, folder: Path, seconds: float) -> Cost:
    """Compute the cost of a model that is saved in `folder`; `seconds` is what its training took."""
    return Cost(
        parameters=count_parameters(model),
        size_bytes=weights_size_bytes(folder),
        compressed_bytes=compressed_size_bytes(folder),
        linear_flops_per_token=linear_flops_per_token(model),
        train_seconds=seconds,
    )


def read_entry(folder: Path) -> Entry:
    """Read the entry of a stage.

    Raises:
        CheckpointError: if `folder` is not a complete stage of a run, or its file is damaged.
    """
    try:
        return Entry.model_validate_json(read_text(folder / STAGE))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a finished stage of a run: {STAGE} is missing") from None
    except (OSError, pydantic.ValidationError) as error:
        raise CheckpointError(
            f"{folder / STAGE} is damaged: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}"
        ) from None
