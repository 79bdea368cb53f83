"""The verb that makes a fine-tuned model fast, without a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from plankwise.cli.options import AsJson, Delimiter, Encoding, MaxLength, Resume, app
from plankwise.core.errors import RecipeError

NOT_MET = 3


@app.command()
def shrink(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or Hub id of a fine-tuned classifier.")],
    data: Annotated[
        list[Path],
        typer.Option(help="Rows, with labels or without: .csv, .tsv, .jsonl, .parquet, .txt; may be repeated."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the search.")],
    test: Annotated[
        list[Path] | None,
        typer.Option(help="Rows that the model has never seen: half to decide on, half held back; may be repeated."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text; guessed if not given.")] = None,
    pair: Annotated[str | None, typer.Option(help="Column of a second text, for models of pairs.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label; guessed if not given.")] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="RAW=LABEL", help="A value of the label column, and the model's label."),
    ] = None,
    label_separator: Annotated[str | None, typer.Option(help="Between the labels of a cell.")] = None,
    retain: Annotated[float | None, typer.Option(help="Share of the score to keep.  [default: 0.99]")] = None,
    speedup: Annotated[
        float | None,
        typer.Option(help="Times as fast as the original in ONNX Runtime fp32; as fast as possible if not given."),
    ] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Size of the artefact, in 10⁶ bytes.")] = None,
    time: Annotated[str, typer.Option(help="What the search may take: 90s, 10m, 3h.")] = "30m",
    on: Annotated[str, typer.Option(help="Where the model will run: cpu or cuda.")] = "cpu",
    processor: Annotated[
        str | None,
        typer.Option("--for", help="Another processor than this one: vnni, avx2 or arm; speed is not measured there."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Of labelled rows: macro_f1, accuracy, …; macro_f1 by default.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A ready recipe, made alone: fast, balanced or extreme.")] = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    max_length: MaxLength = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of everything random.")] = 0,
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be tried and roughly how long; write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a fine-tuned model fast: the best one found under a budget, proved on rows held back.

    Exit code 0 if the budget is met, 3 if not; the best model found is written in both cases.
    """
    from plankwise.cli.live import live_table
    from plankwise.cli.tables import print_table, shrink_plan_table, shrink_table
    from plankwise.search.shrink.clock import parse_duration
    from plankwise.search.shrink.document import lines_of
    from plankwise.search.shrink.request import ShrinkRequest
    from plankwise.search.shrink.shrink import plan
    from plankwise.search.shrink.shrink import shrink as search

    request = ShrinkRequest(
        model=model,
        data=tuple(data),
        out=out,
        test=tuple(test or ()),
        text=text,
        pair=pair,
        label=label,
        names=_mapping(names or []),
        label_separator=label_separator,
        encoding=encoding,
        delimiter=delimiter,
        retain=retain,
        speedup=speedup,
        max_size_mb=max_size_mb,
        seconds=parse_duration(time),
        device=on,
        processor=processor,
        metric=metric,
        recipe=recipe,
        max_length=max_length,
        seed=seed,
    )
    if dry_run:
        rows = plan(request)
        if as_json:
            typer.echo(json.dumps(rows))
        else:
            print_table(shrink_plan_table(rows))
        return
    with live_table(shown=not as_json) as listener:
        document = search(request, resume=resume, listener=listener)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        first, *others = lines_of(document, out)
        typer.echo(first)
        print_table(shrink_table(document))
        typer.echo("\n".join(others))
    if not document["verdict"]["met"]:
        raise typer.Exit(NOT_MET)


def _mapping(given: list[str]) -> dict[str, str]:
    """Read `--map RAW=LABEL` options."""
    names: dict[str, str] = {}
    for each in given:
        raw, equals, name = each.rpartition("=")
        if not equals or not raw or not name:
            raise RecipeError(f"--map {each}: write RAW=LABEL, such as --map 0=hate")
        if names.get(raw, name) != name:
            raise RecipeError(f"--map {each}: '{raw}' is mapped to '{names[raw]}' already")
        names[raw] = name
    return names
