"""What verbs share: their options, how a recipe becomes a run, and how results are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from plankwise.run.pipeline import Checked

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

VERBOSE = "--verbose"


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option(VERBOSE, help="Show other libraries' messages and progress bars; before or after the verb.")
    ] = False,
) -> None:
    """Makes BERT-class encoders small and fast, and proves what was kept."""


RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML recipe.")]
Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key: steps.0.modules=4.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run in the folder, or begin it.")]
MAX_SEED, MAX_TOKENS, MAX_THREADS, MAX_ROUNDS = 2**31 - 1, 1_000_000, 4096, 10_000  # as in `core/numbers.py`
Seed = Annotated[int | None, typer.Option(help="Override the recipe's seed.")]
FromStep = Annotated[
    str | None,
    typer.Option("--from", metavar="STEP", help="Run the steps of a run again from this one: 3, or 03-quantization."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and its estimated cost; train nothing.")]
Deduplicate = Annotated[
    bool, typer.Option("--deduplicate", help="Drop rows of train and development whose text is in a later split.")
]
Encoding = Annotated[str | None, typer.Option(help="Encoding of a text file: cp1252, utf-16, …; UTF-8 by default.")]
Delimiter = Annotated[str | None, typer.Option(help="Delimiter of a .csv; a comma by default.")]
Text = Annotated[str | None, typer.Option(help="Column of the text; guessed if not given.")]
Pair = Annotated[str | None, typer.Option(help="Column of a second text, for models of pairs.")]
Label = Annotated[str | None, typer.Option(help="Column of the label; guessed if not given.")]
Names = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="RAW=LABEL", help="A value of the label column, and the model's label."),
]
Separator = Annotated[str | None, typer.Option(help="Between the labels of a cell.")]
MaxLength = Annotated[
    int | None, typer.Option(min=4, max=MAX_TOKENS, help="Tokens of an input; the model's own by default.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else.")]


def recipe_of(path: Path, overrides: list[str] | None, seed: int | None) -> Any:
    """Read a recipe, with `--seed` as one more override."""
    from plankwise.core.recipe import read_recipe
    from plankwise.run.recipe import Recipe

    return read_recipe(path, Recipe, [*(overrides or []), *([] if seed is None else [f"seed={seed}"])])


def checked_recipe(
    path: Path,
    overrides: list[str] | None,
    seed: int | None,
    out: Path | None = None,
    *,
    resume: bool = False,
    from_step: int | None = None,
    deduplicate: bool = False,
) -> Checked:
    """Read a recipe and check it against its data and model.

    The run's folder is checked first: loading data may take minutes, and the folder may be taken.
    """
    from plankwise.core.paths import check_folder
    from plankwise.core.recipe import to_plain
    from plankwise.run.folder import RunFolder
    from plankwise.run.pipeline import check

    if out is not None:
        check_folder(out)
    dropping = ["task.deduplicate=true"] if deduplicate else []
    recipe = recipe_of(path, [*(overrides or []), *dropping], seed)
    if out is not None:
        RunFolder(out, to_plain(recipe)).refuse_taken(resume, from_step)
    return check(recipe)


def run_checked(checked: Checked, out: Path, *, resume: bool, as_json: bool, **how: Any) -> None:
    """Run a checked recipe, or the part of it that `how` selects, and print the record."""
    from plankwise.cli.tables import print_table, record_table
    from plankwise.core.distributed import is_main_process
    from plankwise.run.pipeline import run

    record = run(checked, out, resume=resume, progress=not as_json, **how)
    if not is_main_process():
        return
    if as_json:
        typer.echo(record.model_dump_json())
    else:
        print_table(record_table(record, out))


def run_or_plan(
    checked: Checked, out: Path, *, resume: bool, dry_run: bool, as_json: bool, from_step: int | None = None
) -> None:
    """Run a checked recipe, or only print its plan; of a run that is there, the steps from a number on."""
    if dry_run:
        from plankwise.run.dry_run import estimate

        plan = estimate(checked)
        again = 0 if from_step is None else len(checked.recipe.steps) - from_step + 1
        print_plan(plan if from_step is None else plan[len(plan) - again :], as_json)
    else:
        run_checked(checked, out, resume=resume, as_json=as_json, from_step=from_step)


def print_plan(plan: list[dict[str, Any]], as_json: bool) -> None:
    """Print the stages of a dry run and roughly what each costs."""
    from plankwise.cli.tables import plan_table, print_table

    if as_json:
        typer.echo(json.dumps(plan))
    else:
        print_table(plan_table(plan))


def print_document(document: Any, as_json: bool, lines: list[str]) -> None:
    """Print a document as JSON, or as lines of text."""
    typer.echo(json.dumps(document) if as_json else "\n".join(lines))
