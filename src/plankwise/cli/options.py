"""What verbs share: their options, and how recipes become runs and results become lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from plankwise.core.records import Record
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
        bool, typer.Option(VERBOSE, help="Show other libraries' notices and progress bars; before or after the verb.")
    ] = False,
) -> None:
    """Makes BERT-class encoders small and fast, and proves what was kept."""


RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML recipe.")]
Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key: steps.0.modules=4.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, or begin it.")]
LARGEST_SEED, MOST_TOKENS, MOST_THREADS, MOST_ROUNDS = 2**31 - 1, 1_000_000, 4096, 10_000  # as in `core/numbers.py`
Seed = Annotated[int | None, typer.Option(help="Override the recipe's seed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and what it costs; train nothing.")]
Deduplicate = Annotated[
    bool, typer.Option("--deduplicate", help="Drop rows of train and development whose text is in a later split.")
]
Encoding = Annotated[str | None, typer.Option(help="Of a text file: cp1252, utf-16, …; UTF-8 by default.")]
Delimiter = Annotated[str | None, typer.Option(help="Between the cells of a .csv; a comma by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]


def recipe_of(path: Path, overrides: list[str] | None, seed: int | None) -> Any:
    """Read a recipe."""
    from plankwise.core.recipe import read_recipe
    from plankwise.run.recipe import Recipe

    return read_recipe(path, Recipe, [*(overrides or []), *([] if seed is None else [f"seed={seed}"])])


def checked_recipe(
    path: Path,
    overrides: list[str] | None,
    seed: int | None,
    out: Path | None = None,
    resume: bool = False,
    deduplicate: bool = False,
) -> Checked:
    """Read a recipe and check it against its data and model, after the folder that the run is to be written to."""
    from plankwise.core.paths import check_folder
    from plankwise.core.recipe import to_plain
    from plankwise.run.folder import RunFolder
    from plankwise.run.pipeline import check

    if out is not None:
        check_folder(out)
    dropping = ["task.deduplicate=true"] if deduplicate else []
    recipe = recipe_of(path, [*(overrides or []), *dropping], seed)
    if out is not None:
        RunFolder(out, to_plain(recipe)).refuse_taken(resume)
    return check(recipe)


def run_checked(checked: Checked, out: Path, resume: bool, as_json: bool, **how: Any) -> None:
    """Do the chain of a checked recipe, or the part of it that `how` says, and show the run."""
    from plankwise.run.pipeline import run

    print_record(run(checked, out, resume=resume, progress=not as_json, **how), out, as_json)


def run_or_plan(checked: Checked, out: Path, resume: bool, dry_run: bool, as_json: bool) -> None:
    """Do the whole chain of a checked recipe, or only plan it."""
    if dry_run:
        from plankwise.run.dry_run import estimate

        print_plan(estimate(checked), as_json)
    else:
        run_checked(checked, out, resume, as_json)


def print_plan(plan: list[dict[str, Any]], as_json: bool) -> None:
    """Print what would be done and roughly what it costs."""
    from plankwise.cli.tables import plan_table, print_table

    if as_json:
        typer.echo(json.dumps(plan))
    else:
        print_table(plan_table(plan))


def print_record(record: Record, out: Path, as_json: bool) -> None:
    """Show a run, from the main process alone."""
    from plankwise.cli.tables import print_table, record_table
    from plankwise.core.distributed import is_main_process

    if not is_main_process():
        return
    if as_json:
        typer.echo(record.model_dump_json())
    else:
        print_table(record_table(record, out))


def print_document(document: Any, as_json: bool, lines: list[str]) -> None:
    """Print a JSON document, or lines for people."""
    typer.echo(json.dumps(document) if as_json else "\n".join(lines))
