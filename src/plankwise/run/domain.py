"""The main experiment: compress a domain's language model once, then fine-tune both the large and the small for tasks.

corpus → language model → compressed language model → each fine-tuned on every task, over several seeds → one table.
Every arrow is a run of the ordinary chain in a folder of its own, so that all of it resumes and leaves records.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic

from plankwise.core.distributed import is_main_process
from plankwise.core.errors import ModelError, RecipeError
from plankwise.core.files import write_json, write_text
from plankwise.core.numbers import Seeds
from plankwise.core.recipe import Name, read_recipe, settings, to_plain
from plankwise.data.batching.examples import check_fits
from plankwise.data.task import TRAIN, Task
from plankwise.data.tokenizer.unknown_tokens import SAMPLED, check_unknown
from plankwise.data.truncation import Truncation
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.benchmark.workload import texts_of_split
from plankwise.methods.registry import method_of
from plankwise.report.domain_table import markdown, summarize
from plankwise.run.dry_run import rehearse, rehearse_fine_tuning
from plankwise.run.pipeline import MODEL, Checked, check, run
from plankwise.run.recipe import AnyTask, Evaluation, Model, Recipe
from plankwise.run.stages import BASELINE
from plankwise.training.fit import Training, check_training
from plankwise.training.objectives.registry import OBJECTIVES
from plankwise.training.objectives.settings import ObjectiveSettings

LANGUAGE_MODEL, TABLE = "language-model", "domain.json"


@settings
class Downstream(Truncation):
    """One task to fine-tune both language models for; its texts are read as `Truncation` says.

    Attributes:
        name: of its runs.
        task: the data.
        fine_tuning: of the large model.
        compressed: fine-tuning of the small one; the same by default.
        objective: the loss.
    """

    name: Name
    task: AnyTask
    fine_tuning: Training = Training()
    compressed: Training | None = None
    objective: ObjectiveSettings = ObjectiveSettings()


@settings
class Domain:
    """The main experiment.

    Attributes:
        name: what tables call it.
        language_model: recipe of `plankwise pretrain`, beside this file; its last step gives the small model.
        tasks: to fine-tune for.
        seeds: of each fine-tuning.
        evaluation: how the end is measured.
    """

    name: Name
    language_model: Path
    tasks: Annotated[tuple[Downstream, ...], pydantic.Field(min_length=1)]
    seeds: Seeds = (1, 2, 3)
    evaluation: Evaluation = Evaluation()


@dataclass(frozen=True)
class DomainPlan:
    """A domain experiment whose language model's recipe and tasks were looked at; nothing has been trained.

    Attributes:
        domain: as given.
        language_model: checked.
        tasks: loaded, in the order of the domain's.
    """

    domain: Domain
    language_model: Checked
    tasks: tuple[Task, ...]


def read_domain(path: Path, overrides: Sequence[str] = ()) -> Domain:
    """Read the YAML file of a domain experiment; the path of its language model's recipe is relative to it."""
    domain = read_recipe(path, Domain, overrides)
    names = [each.name for each in domain.tasks]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise RecipeError(f"{path}: two tasks are named '{repeated[0]}'")
    if len(set(domain.seeds)) < len(domain.seeds):
        raise RecipeError(f"{path}: seeds {list(domain.seeds)} name one twice")
    return domain


def check_domain(path: Path, domain: Domain, overrides: Sequence[str] = ()) -> DomainPlan:
    """Load every task and the corpus, and plan the compression, before anything is trained.

    Raises:
        PlankwiseError: of the kind that fits.
    """
    recipe_path = path.parent / domain.language_model
    recipe = read_recipe(recipe_path, Recipe, overrides)
    if OBJECTIVES[recipe.task.kinds[0]].has_labels:
        raise RecipeError(f"{recipe_path}: a language model is trained on a task of name 'corpus'")
    if not recipe.steps:
        raise RecipeError(f"{recipe_path}: steps is empty; the experiment needs a compressed language model")
    checked = check(recipe)
    if checked.specs[-1].trimmed:
        raise RecipeError(f"{recipe_path}: steps: both language models have to share a tokenizer; leave out vocabulary")
    return DomainPlan(domain, checked, tuple(_checked_task(path, each, checked) for each in domain.tasks))


def _checked_task(path: Path, downstream: Downstream, language_model: Checked) -> Task:
    """Load a task; refuse one that could not be fine-tuned for once the language models are there, days later."""
    if not OBJECTIVES[downstream.task.kinds[0]].has_labels:
        raise RecipeError(f"{path}: tasks: {downstream.name}: a corpus has no labels to fine-tune for")
    longest = min(usable_positions(spec.config) for spec in language_model.specs)
    source = language_model.recipe.model.source
    try:
        for training in (downstream.fine_tuning, downstream.compressed or downstream.fine_tuning):
            check_training(training)
        if downstream.max_length > longest:
            raise RecipeError(f"max_length {downstream.max_length} is more than the model's {longest} positions")
        task = downstream.task.load()
        tokenizer = None if source is None else load_tokenizer(source)
        check_fits(downstream.plain_truncation, task, tokenizer)
        if tokenizer is not None:
            check_unknown(texts_of_split(task.splits[TRAIN], SAMPLED), tokenizer, str(source))
        return task
    except (RecipeError, ModelError) as error:
        raise type(error)(f"{path}: tasks: {downstream.name}: {error}") from None


def estimate_domain(plan: DomainPlan) -> list[dict[str, Any]]:
    """Estimate parameters, steps and rough seconds of every stage, fine-tunings over all seeds together."""
    costs, tokenizer = rehearse(plan.language_model)
    specs, seeds = plan.language_model.specs, len(plan.domain.seeds)
    for each, task in zip(plan.domain.tasks, plan.tasks, strict=True):
        for size, config, training in (
            ("large", specs[0].config, each.fine_tuning),
            ("small", specs[-1].config, each.compressed or each.fine_tuning),
        ):
            stage = f"{each.name}, {size}, {seeds} seeds"
            one = rehearse_fine_tuning(
                stage, config, task, tokenizer, truncation=each.plain_truncation, training=training
            )
            costs.append(dataclasses.replace(one, steps=seeds * one.steps, seconds=seeds * one.seconds))
    return [dataclasses.asdict(cost) for cost in costs]


def run_domain(plan: DomainPlan, out: Path, *, resume: bool = False, progress: bool = False) -> dict[str, Any]:
    """Run the whole experiment into `out`, or resume it.

    Returns:
        The table as a JSON document; it is written to `domain.json` and `domain.md` as well.
    """
    run(plan.language_model, out / LANGUAGE_MODEL, resume=resume, progress=progress)
    for downstream, task in zip(plan.domain.tasks, plan.tasks, strict=True):
        for seed in plan.domain.seeds:
            recipe = _recipe(plan.domain, downstream, seed, out)
            run(check(recipe, task), _folder(out, downstream, seed), resume=resume, progress=progress)
    document = summarize(
        plan.domain.name,
        out / LANGUAGE_MODEL,
        {each.name: [_folder(out, each, seed) for seed in plan.domain.seeds] for each in plan.domain.tasks},
    )
    if is_main_process():
        write_json(out / TABLE, document)
        write_text(out / "domain.md", markdown(document) + "\n")
    return document


def _folder(out: Path, downstream: Downstream, seed: int) -> Path:
    return out / f"{downstream.name}-{seed}"


def _recipe(domain: Domain, downstream: Downstream, seed: int, out: Path) -> Recipe:
    training = to_plain(downstream.compressed or downstream.fine_tuning)
    step = {"method": "checkpoint", "source": str(out / LANGUAGE_MODEL / MODEL), "training": training}
    return Recipe(
        name=downstream.name,
        task=downstream.task,
        model=Model(
            source=str(out / LANGUAGE_MODEL / BASELINE),
            max_length=downstream.max_length,
            truncation=downstream.truncation,
            windows=downstream.windows,
        ),
        baseline=downstream.fine_tuning,
        objective=downstream.objective,
        steps=(method_of(step),),
        evaluation=domain.evaluation,
        seed=seed,
    )
