"""The domain experiment: corpus → language models → each fine-tuned on every task, over several seeds → one table.

Every arrow is a run of the ordinary chain in a folder of its own, so that all of it resumes and leaves records.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plankwise.core.distributed import is_main_process, on_main_process
from plankwise.core.files import make_writable_folder, write_json, write_text
from plankwise.core.hardware import environment
from plankwise.core.recipe import to_plain
from plankwise.data.task import Task
from plankwise.methods.registry import method_of
from plankwise.report.domain_table import ModelRuns, markdown, picture_of, summarize
from plankwise.run.contents import check_same
from plankwise.run.domain.budget import factor_for, scaled_steps, scaled_training
from plankwise.run.domain.plan import DomainPlan, language_model_recipe, without_baseline
from plankwise.run.domain.preparation import PREPARATION, PREPARED, prepare_source
from plankwise.run.domain.settings import LARGE, Downstream, Variant
from plankwise.run.domain.speed import time_runtimes
from plankwise.run.dry_run import rehearse
from plankwise.run.pipeline import MODEL, check, run
from plankwise.run.recipe import Model, Recipe
from plankwise.run.stages import BASELINE

logger = logging.getLogger(__name__)
LANGUAGE_MODEL, TABLE, BUDGET = "language-model", "domain.json", "budget.json"


class Experiment:
    """One domain experiment in its folder.

    Args:
        plan: checked.
        out: the folder.
        resume: whether the folder may hold a part of it.
        progress: whether to show progress bars.
    """

    def __init__(self, plan: DomainPlan, out: Path, *, resume: bool = False, progress: bool = False) -> None:
        self._plan, self._out, self._resume, self._progress = plan, out, resume, progress
        self._source = plan.recipe.model.source

    def run(self) -> dict[str, Any]:
        """Do what is not done yet.

        Returns:
            The table as a JSON document; it is written to `domain.json` and `domain.md` as well.
        """
        plan, preparation = self._plan, None
        on_main_process(lambda: make_writable_folder(self._out), self._out)
        if plan.domain.prepare:
            on_main_process(lambda: prepare_source(plan, self._out), self._out)
            self._source = str(self._out / PREPARED)
            preparation = json.loads((self._out / PREPARATION).read_text("utf-8"))
        self._run(self._large_recipe(), plan.corpus, LANGUAGE_MODEL, until="baseline")
        for name, variant in plan.variants.items():
            if variant.steps:
                recipe = self._variant_recipe(name, variant)
                self._run(recipe, plan.corpus, f"{LANGUAGE_MODEL}-{name}", start_from=self._out / LANGUAGE_MODEL)
        for downstream, task in zip(plan.domain.tasks, plan.tasks, strict=True):
            for seed in plan.domain.seeds:
                self._fine_tune(downstream, task, seed)
        document = summarize(plan.domain.name, self._models(), self._runs())
        document |= {"environment": environment(), "minutes": plan.domain.minutes, "preparation": preparation}
        for downstream, task in zip(plan.domain.tasks, plan.tasks, strict=True):
            document["tasks"][downstream.name]["runtimes"] = self._speed(downstream, task)
        if is_main_process():
            write_json(self._out / TABLE, document)
            write_text(self._out / "domain.md", markdown(document) + "\n")
            for task, row in document["tasks"].items():
                if picture := picture_of(row, task):
                    write_text(self._out / f"{task}.svg", picture)
        return document

    def _run(self, recipe: Recipe, task: Task, name: str, **how: Any) -> None:
        folder = self._out / name
        run(check(recipe, task), folder, resume=self._resume, progress=self._progress, **how)

    def _large_recipe(self) -> Recipe:
        """Return the recipe of the large language model, with the epochs that its minutes allow."""
        recipe = language_model_recipe(self._plan, self._source)
        if recipe.baseline is None:
            return recipe

        def find() -> float:
            costs = rehearse(check(recipe, self._plan.corpus))[0]
            return factor_for(costs[-1:], self._plan.domain.minutes, "the language model")

        return dataclasses.replace(recipe, baseline=scaled_training(recipe.baseline, self._factor(LARGE, find)))

    def _variant_recipe(self, name: str, variant: Variant) -> Recipe:
        def find() -> float:
            costs = rehearse(without_baseline(self._plan, variant.steps, self._source))[0]
            return factor_for(costs[-len(variant.steps) :], self._plan.domain.minutes, name)

        steps = scaled_steps(variant.steps, self._factor(name, find))
        return dataclasses.replace(self._large_recipe(), steps=steps)

    def _factor(self, name: str, find: Callable[[], float]) -> float:
        """Return the factor of a training's epochs, found once: a run that is resumed has to keep its epochs."""
        path, minutes = self._out / BUDGET, self._plan.domain.minutes
        if minutes is None:
            return 1.0
        known: dict[str, Any] = {"minutes": minutes, "factors": {}}
        if path.exists():
            known = json.loads(path.read_text("utf-8"))
            check_same({"minutes": known["minutes"]}, {"minutes": minutes}, self._out)
        factors: dict[str, float] = known["factors"]
        if name not in factors:
            factors[name] = find()
            on_main_process(lambda: write_json(path, known), self._out)
            factors = json.loads(path.read_text("utf-8"))["factors"]  # in every process what the main one has timed
        return factors[name]

    def _fine_tune(self, downstream: Downstream, task: Task, seed: int) -> None:
        """Fine-tune the large model once, and every variant of it; what two variants have in common is made once."""
        made: dict[bool, Path] = {}
        for name, variant in self._plan.variants.items():
            folder = run_folder(self._out, downstream.name, name, seed)
            donor = made.get(variant.adapted) or next(iter(made.values()), None)
            self._run(self._task_recipe(downstream, name, variant, seed), task, folder.name, start_from=donor)
            made.setdefault(variant.adapted, folder)

    def _task_recipe(self, downstream: Downstream, name: str, variant: Variant, seed: int) -> Recipe:
        large = str(self._out / LANGUAGE_MODEL / BASELINE)
        steps = list(variant.at_task)
        if variant.steps or not variant.adapted:
            start = str(self._out / f"{LANGUAGE_MODEL}-{name}" / MODEL) if variant.steps else self._source
            training = to_plain(downstream.compressed or downstream.fine_tuning)
            steps.insert(0, method_of({"method": "checkpoint", "source": start, "training": training}))
        return Recipe(
            name=f"{downstream.name}-{name}",
            task=downstream.task,
            model=Model(
                source=large,
                max_length=downstream.max_length,
                truncation=downstream.truncation,
                windows=downstream.windows,
            ),
            baseline=downstream.fine_tuning,
            objective=downstream.objective,
            steps=tuple(steps),
            evaluation=self._plan.domain.evaluation,
            seed=seed,
        )

    def _models(self) -> dict[str, Path]:
        compressed = [name for name, variant in self._plan.variants.items() if variant.steps]
        folders = {name: self._out / f"{LANGUAGE_MODEL}-{name}" for name in compressed}
        return {LARGE: self._out / LANGUAGE_MODEL, **folders}

    def _runs(self) -> dict[str, ModelRuns]:
        return {
            downstream.name: {
                name: [run_folder(self._out, downstream.name, name, seed) for seed in self._plan.domain.seeds]
                for name in self._plan.variants
            }
            for downstream in self._plan.domain.tasks
        }

    def _speed(self, downstream: Downstream, task: Task) -> dict[str, dict[str, Any]]:
        """Time the models of the first seed in ONNX Runtime; shapes alone decide, so that one seed is enough."""
        path = self._out / f"runtimes-{downstream.name}.json"

        def measure() -> None:
            folders = {
                name: run_folder(self._out, downstream.name, name, self._plan.domain.seeds[0])
                for name in self._plan.variants
            }
            models = {
                LARGE: next(iter(folders.values())) / BASELINE,
                **{name: folder / MODEL for name, folder in folders.items()},
            }
            write_json(path, time_runtimes(models, task, downstream.plain_truncation))

        on_main_process(lambda: None if path.exists() else measure(), self._out)
        found: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
        return found


def run_domain(plan: DomainPlan, out: Path, *, resume: bool = False, progress: bool = False) -> dict[str, Any]:
    """Run the whole experiment into `out`, or resume it; returns the document that `Experiment.run` describes."""
    return Experiment(plan, out, resume=resume, progress=progress).run()


def run_folder(out: Path, task: str, variant: str, seed: int) -> Path:
    """Return the folder of one fine-tuning."""
    return out / f"{task}-{variant}-{seed}"
