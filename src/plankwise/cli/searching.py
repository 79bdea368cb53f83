"""The verb that searches the settings of a recipe's steps under a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plankwise.cli.options import AsJson, DryRun, Set, app, print_document
from plankwise.core.errors import RecipeError
from plankwise.core.packages import require

if TYPE_CHECKING:
    from plankwise.search.pareto.search import SearchRequest


@app.command()
def search(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A YAML recipe, or a search file: a recipe and what may vary.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the search.")],
    retain: Annotated[float, typer.Option(help="Share of the baseline's score to keep.")] = 0.99,
    speedup: Annotated[
        float | None,
        typer.Option(help="Times as fast as the baseline in ONNX Runtime fp32; as fast as possible if not given."),
    ] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Size of the artefact, in 10⁶ bytes.")] = None,
    time: Annotated[str | None, typer.Option(help="What this worker may take: 90s, 10m, 3h.")] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Settings to try; 40 if neither is given.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="For workers on several machines: postgresql://USER@HOST/NAME.")
    ] = None,
    overrides: Set = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Override the recipe's seed.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume or join the search in the folder, or begin it.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Find the settings of a recipe's steps that keep the score and make it fast; prove the best on the test split.

    Exit code 0 if the budget is met, 3 if not; the best model found is written in both cases.
    """
    # Before plankwise.search is imported, which imports Optuna.
    require("a search", "optuna", "matplotlib", error=RecipeError)
    from plankwise.search.pareto.search import SearchRequest
    from plankwise.search.shrink.clock import parse_duration

    request = SearchRequest(
        path=recipe,
        out=out,
        retain=retain,
        speedup=speedup,
        max_size_mb=max_size_mb,
        seconds=None if time is None else parse_duration(time),
        trials=trials,
        storage=storage,
        overrides=tuple(overrides or ()),
        seed=seed,
    )
    _plan(request, as_json) if dry_run else _search(request, resume=resume, as_json=as_json)


def _plan(request: SearchRequest, as_json: bool) -> None:
    """Print what a search would try, and roughly how long it would take."""
    from plankwise.search.pareto.dry_run import estimate_search, plan_lines

    plan = estimate_search(request)
    print_document(plan, as_json, plan_lines(plan))


def _search(request: SearchRequest, *, resume: bool, as_json: bool) -> None:
    """Search, and print the verdict; exit with 3 if the budget is not met."""
    from plankwise.cli.search_tables import print_outcome
    from plankwise.search.pareto.document import lines_of
    from plankwise.search.pareto.search import search as run_search

    document = run_search(request, resume=resume)
    print_outcome(document, lines_of(document, request.out), as_json)
