"""Verbs that train: runs, language models, experiments over them, studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from plankwise.cli.options import (
    AsJson,
    Deduplicate,
    DryRun,
    FromStep,
    Out,
    RecipePath,
    Resume,
    Seed,
    Set,
    app,
    checked_recipe,
    print_document,
    print_plan,
    recipe_of,
    run_checked,
    run_or_plan,
)
from plankwise.core.errors import RecipeError
from plankwise.core.packages import require


@app.command()
def run(
    recipe: RecipePath,
    out: Out,
    overrides: Set = None,
    resume: Resume = False,
    seed: Seed = None,
    from_: FromStep = None,
    deduplicate: Deduplicate = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole chain: baseline, every step, evaluation, record and report."""
    step = None
    if from_ is not None:
        from plankwise.run.contents import step_number

        if resume:
            raise RecipeError("--from runs steps of a run again, --resume continues it; give one of both")
        step = step_number(from_, recipe_of(recipe, overrides, seed).steps, out)
    place = None if dry_run and step is None else out
    checked = checked_recipe(recipe, overrides, seed, place, resume=resume, from_step=step, deduplicate=deduplicate)
    run_or_plan(checked, out, resume=resume, dry_run=dry_run, as_json=as_json, from_step=step)


@app.command()
def finetune(
    recipe: RecipePath,
    out: Out,
    overrides: Set = None,
    resume: Resume = False,
    seed: Seed = None,
    deduplicate: Deduplicate = False,
    as_json: AsJson = False,
) -> None:
    """Train the baseline only, without touching the test split; `run --resume` or `compress` continue from it."""
    checked = checked_recipe(recipe, overrides, seed, out, resume=resume, deduplicate=deduplicate)
    if checked.recipe.baseline is None:
        raise RecipeError(f"{recipe}: baseline: null takes the model as it is, so there is nothing to train; use run")
    run_checked(checked, out, resume=resume, as_json=as_json, until="baseline")


@app.command()
def pretrain(
    recipe: RecipePath,
    out: Out,
    overrides: Set = None,
    resume: Resume = False,
    seed: Seed = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train a language model on a corpus, from scratch or from a checkpoint, and compress it by the recipe's steps."""
    checked = checked_recipe(recipe, overrides, seed, None if dry_run else out, resume=resume)
    if not checked.specs[0].objective.reads_blocks:
        raise RecipeError(f"{recipe}: pretrain takes a task of name 'corpus', not '{checked.recipe.task.name}'")
    run_or_plan(checked, out, resume=resume, dry_run=dry_run, as_json=as_json)


@app.command()
def domain(
    recipe: Annotated[Path, typer.Argument(metavar="DOMAIN", help="YAML: a language model's recipe, tasks and seeds.")],
    out: Out,
    overrides: Set = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compress a language model once, fine-tune the large and the small one on every task, and compare."""
    from plankwise.core.paths import check_folder
    from plankwise.report.domain_table import markdown
    from plankwise.run.domain.experiment import run_domain
    from plankwise.run.domain.plan import check_domain, estimate_domain
    from plankwise.run.domain.settings import read_domain

    if not dry_run:
        check_folder(out)
    plan = check_domain(recipe, read_domain(recipe, overrides or []))
    if dry_run:
        print_plan(estimate_domain(plan), as_json)
        return
    document = run_domain(plan, out, resume=resume, progress=not as_json)
    print_document(document, as_json, [markdown(document)])


@app.command()
def compress(
    recipe: RecipePath,
    out: Out,
    baseline: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="RUN/baseline of a run with the same data and seed, or a fine-tuned classifier: its folder or Hub id.",
        ),
    ],
    overrides: Set = None,
    resume: Resume = False,
    seed: Seed = None,
    deduplicate: Deduplicate = False,
    as_json: AsJson = False,
) -> None:
    """Compress a model that has been fine-tuned before, and prove what was kept."""
    from plankwise.core.paths import check_folder
    from plankwise.run.baselines import as_it_is, is_baseline_stage

    check_folder(out)
    stage = is_baseline_stage(Path(baseline))  # fails early, before anything is loaded
    given = overrides if stage else [*(overrides or []), *as_it_is(baseline)]
    checked = checked_recipe(recipe, given, seed, out, resume=resume, deduplicate=deduplicate)
    run_checked(checked, out, resume=resume, as_json=as_json, baseline=Path(baseline) if stage else None)


@app.command()
def study(
    recipe: Annotated[Path, typer.Argument(metavar="STUDY", help="A YAML study: a recipe and what to vary in it.")],
    out: Annotated[Path, typer.Option(help="Folder of the study.")],
    overrides: Set = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume or join the study in the folder or the storage, or begin it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every setting, count trials, and estimate how long they take.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report", help="Report on the trials that are complete so far; train nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Vary hyperparameters of a recipe, one trial per setting and seed, and report their effects on the score."""
    # Before plankwise.search is imported, which imports Optuna.
    require("a study", "optuna", "matplotlib", error=RecipeError)
    from plankwise.core.paths import check_folder
    from plankwise.search.study_plan import format_setting, read_study

    if not dry_run:
        check_folder(out)
    plan = read_study(recipe, overrides or [])
    if dry_run:
        from plankwise.search.dry_run import cost_lines, estimate_study

        cost = estimate_study(plan)
        print_document(cost, as_json, cost_lines(cost))
        return
    from plankwise.cli.tables import print_table, study_table
    from plankwise.search.study_report import write_study
    from plankwise.search.worker import run_study

    rows = run_study(plan, out, resume=resume or report_only, train=not report_only)
    document = write_study(plan, rows, out)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        best = document["best"][0]
        score = f"{document['metric']} {best['mean']:.4f}, {best['seeds']} seeds"
        print_table(study_table(document))
        typer.echo(f"best: {format_setting(best['setting'])}: {score}\n{out / 'report.html'}")
