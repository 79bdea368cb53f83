"""What a domain experiment will do, checked before anything is trained, and what it will cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from plankwise.core.errors import DataError, MethodError, ModelError, RecipeError
from plankwise.core.recipe import read_recipe
from plankwise.data.batching.examples import check_fits
from plankwise.data.corpus.corpus import Corpus
from plankwise.data.task import TRAIN, Task
from plankwise.data.tokenizer.unknown_tokens import SAMPLED, check_unknown
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.benchmark.workload import texts_of_split
from plankwise.methods.method import ModelSpec
from plankwise.methods.registry import AnyMethod
from plankwise.run.domain.budget import factor_for, scaled_cost
from plankwise.run.domain.corpus import clean_corpus, with_task_texts
from plankwise.run.domain.settings import COMPRESSED, LARGE, Domain, Downstream, Variant
from plankwise.run.dry_run import SECONDS_IN_ALL, SECONDS_PER_STAGE, StageCost, rehearse, rehearse_fine_tuning
from plankwise.run.pipeline import Checked, check
from plankwise.run.recipe import Recipe
from plankwise.training.fit import Training, check_training
from plankwise.training.objectives.registry import OBJECTIVES, objective_of


@dataclass(frozen=True)
class DomainPlan:
    """A domain experiment whose language models and tasks were looked at; nothing has been trained.

    Attributes:
        domain: as given.
        recipe: of the language model, without steps.
        corpus: loaded, without lines that are test texts, and with the texts of the tasks if these belong to it.
        variants: by name; at least one.
        specs: of the last model of each variant's steps, by name, and of the large language model.
        tasks: loaded, in the order of the domain's.
    """

    domain: Domain
    recipe: Recipe
    corpus: Task
    variants: Mapping[str, Variant]
    specs: Mapping[str, ModelSpec]
    tasks: tuple[Task, ...]


def check_domain(path: Path, domain: Domain, overrides: Sequence[str] = ()) -> DomainPlan:
    """Load every task and the corpus, and plan every variant, before anything is trained.

    Args:
        path: of the experiment's file.
        domain: read from it.
        overrides: of the language model's recipe.

    Raises:
        PlankwiseError: of the kind that fits.
    """
    place = path.parent / domain.language_model
    whole = read_recipe(place, Recipe, overrides)
    if OBJECTIVES[whole.task.kinds[0]].has_labels:
        raise RecipeError(f"{place}: a language model is trained on a task of name 'corpus'")
    variants = _variants(path, place, domain, whole)
    recipe = dataclasses.replace(whole, steps=())
    _check_source(path, domain, variants, recipe)
    tasks = tuple(_loaded(path, each) for each in domain.tasks)
    corpus = clean_corpus(place, cast("Corpus", whole.task), domain, tasks)
    if domain.task_texts:
        corpus = with_task_texts(corpus, tasks)
    specs = {LARGE: check(recipe, corpus).specs[-1]}
    _check_steps(f"{path}: prepare", domain.prepare, specs[LARGE])
    for name, variant in variants.items():
        specs[name] = check(dataclasses.replace(recipe, steps=variant.steps), corpus).specs[-1]
        if specs[name].trimmed:
            raise RecipeError(f"{place}: steps: all language models have to share a tokenizer; leave out vocabulary")
    for downstream, task in zip(domain.tasks, tasks, strict=True):
        _check_task(path, downstream, task, recipe, specs)
        for name, variant in variants.items():
            at_task = dataclasses.replace(specs[name], objective=objective_of(task.kind, downstream.objective))
            _check_steps(f"{path}: variants: {name}: at_task", variant.at_task, at_task)
    return DomainPlan(domain, recipe, corpus, variants, specs, tasks)


def _variants(path: Path, place: Path, domain: Domain, whole: Recipe) -> dict[str, Variant]:
    if domain.variants and whole.steps:
        raise RecipeError(f"{place}: steps: {path} has variants, which say how to compress; leave out steps")
    if not domain.variants and not whole.steps:
        raise RecipeError(f"{place}: steps is empty; the experiment needs a compressed language model, or variants")
    return dict(domain.variants) or {COMPRESSED: Variant(steps=whole.steps)}


def _check_source(path: Path, domain: Domain, variants: Mapping[str, Variant], recipe: Recipe) -> None:
    """Refuse what needs a source that exists, where the language model is trained from scratch."""
    if recipe.model.source is not None:
        return
    if domain.prepare:
        raise RecipeError(f"{path}: prepare changes a model that exists; allowed: with model.source")
    plain = next((name for name, variant in variants.items() if not variant.adapted), None)
    if plain is not None:
        raise RecipeError(f"{path}: variants: {plain}: adapted: false starts from a model that exists; there is none")


def _loaded(path: Path, downstream: Downstream) -> Task:
    if not OBJECTIVES[downstream.task.kinds[0]].has_labels:
        raise RecipeError(f"{path}: tasks: {downstream.name}: a corpus has no labels to fine-tune for")
    try:
        return downstream.task.load()
    except DataError as error:
        raise DataError(f"{path}: tasks: {downstream.name}: {error}") from None


def _check_task(path: Path, downstream: Downstream, task: Task, recipe: Recipe, specs: Mapping[str, ModelSpec]) -> None:
    """Refuse a task that could not be fine-tuned for once the language models are there, days later."""
    longest = min(usable_positions(spec.config) for spec in specs.values())
    source = recipe.model.source
    try:
        for training in (downstream.fine_tuning, downstream.compressed or downstream.fine_tuning):
            check_training(training)
        if downstream.max_length > longest:
            raise RecipeError(f"max_length {downstream.max_length} is more than the model's {longest} positions")
        tokenizer = None if source is None else load_tokenizer(source)
        check_fits(downstream.plain_truncation, task, tokenizer)
        if tokenizer is not None:
            check_unknown(texts_of_split(task.splits[TRAIN], SAMPLED), tokenizer, str(source))
    except (RecipeError, ModelError) as error:
        raise type(error)(f"{path}: tasks: {downstream.name}: {error}") from None


def _check_steps(place: str, steps: Sequence[AnyMethod], spec: ModelSpec) -> None:
    """Plan steps that follow each other on what is known of a model."""
    for number, step in enumerate(steps):
        try:
            spec = step.plan(spec)
        except (MethodError, RecipeError, ModelError) as error:
            raise type(error)(f"{place}.{number} ({step.method}): {error}") from None


def language_model_recipe(plan: DomainPlan, source: str | None, steps: Sequence[AnyMethod] = ()) -> Recipe:
    """Return the recipe of one language model.

    Args:
        plan: of the experiment.
        source: model to start from, where it was prepared; the recipe's own otherwise.
        steps: of the variant; none for the large model.
    """
    model = plan.recipe.model if source is None else dataclasses.replace(plan.recipe.model, source=source)
    return dataclasses.replace(plan.recipe, model=model, steps=tuple(steps))


def without_baseline(plan: DomainPlan, steps: Sequence[AnyMethod], source: str | None = None) -> Checked:
    """Check a variant's steps alone, to rehearse them: the large language model is trained elsewhere."""
    checked = check(language_model_recipe(plan, source, steps), plan.corpus)
    return dataclasses.replace(checked, recipe=dataclasses.replace(checked.recipe, baseline=None))


def estimate_domain(plan: DomainPlan) -> list[dict[str, Any]]:
    """Estimate parameters, steps and rough seconds of every stage, fine-tunings over all seeds together.

    Where the source is prepared, trainings are upper bounds: how many tokens stay, say, is known once they are counted.
    """
    costs, tokenizer = rehearse(check(plan.recipe, plan.corpus))
    prepare = plan.domain.prepare
    if prepare:
        prepared = rehearse(without_baseline(plan, prepare))[0][-len(prepare) :]
        costs = [*(_named(each, f"prepare, {each.stage}") for each in prepared), *costs]
    if plan.recipe.baseline is not None:
        factor = factor_for(costs[-1:], plan.domain.minutes, "the language model")
        costs[-1] = scaled_cost(costs[-1], factor)
    for name, variant in plan.variants.items():
        if variant.steps:
            steps = rehearse(without_baseline(plan, variant.steps))[0][-len(variant.steps) :]
            factor = factor_for(steps, plan.domain.minutes, name)
            costs += [_named(scaled_cost(each, factor), f"{name}, {each.stage}") for each in steps]
    for downstream, task in zip(plan.domain.tasks, plan.tasks, strict=True):
        for name in (LARGE, *plan.variants):
            costs += _estimate_task(plan, name, downstream, task, tokenizer)
    return [dataclasses.asdict(cost) for cost in costs]


def _estimate_task(
    plan: DomainPlan, name: str, downstream: Downstream, task: Task, tokenizer: PreTrainedTokenizerBase
) -> list[StageCost]:
    """Estimate the fine-tuning of one model for a task, and its steps at the task, over all seeds."""
    variant, seeds = plan.variants.get(name), len(plan.domain.seeds)
    training: Training | None = downstream.fine_tuning
    if variant is not None:
        is_large = variant.adapted and not variant.steps  # fine-tuned as `large` already
        training = None if is_large else downstream.compressed or downstream.fine_tuning
    costs = rehearse_fine_tuning(
        dataclasses.replace(plan.specs[name], objective=objective_of(task.kind, downstream.objective)),
        task,
        tokenizer,
        truncation=downstream.plain_truncation,
        training=training,
        steps=() if variant is None else variant.at_task,
        seconds=min(SECONDS_PER_STAGE, SECONDS_IN_ALL / (len(plan.tasks) * (1 + len(plan.variants)))),
    )
    stage = f"{downstream.name}, {name}"
    return [
        dataclasses.replace(
            each,
            stage=f"{stage}, {seeds} seeds" if each.stage == "fine-tuning" else f"{stage}, {each.stage}, {seeds} seeds",
            steps=seeds * each.steps,
            seconds=seeds * each.seconds,
        )
        for each in costs
    ]


def _named(cost: StageCost, stage: str) -> StageCost:
    return dataclasses.replace(cost, stage=stage)
