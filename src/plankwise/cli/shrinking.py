"""The verb that makes a fine-tuned model fast, without a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plankwise.cli.options import (
    AsJson,
    Delimiter,
    Encoding,
    Label,
    MaxLength,
    Names,
    Pair,
    Resume,
    Separator,
    Text,
    app,
)

if TYPE_CHECKING:
    from plankwise.search.shrink.request import ShrinkRequest

Data = Annotated[
    list[Path], typer.Option(help="Rows, with labels or without: .csv, .tsv, .jsonl, .parquet, .txt; may be repeated.")
]
Test = Annotated[
    list[Path] | None,
    typer.Option(help="Rows that the model has never seen: half to decide on, half held back; may be repeated."),
]
Retain = Annotated[float | None, typer.Option(help="Share of the score to keep.  [default: 0.99]")]
Speedup = Annotated[
    float | None,
    typer.Option(help="Times as fast as the original in ONNX Runtime fp32; as fast as possible if not given."),
]
Size = Annotated[float | None, typer.Option(help="Size of the artefact, in 10⁶ bytes.")]
Time = Annotated[str, typer.Option(help="What the search may take: 90s, 10m, 3h.")]
Device = Annotated[str, typer.Option(help="Where the model will run: cpu or cuda.")]
Processor = Annotated[
    str | None,
    typer.Option("--for", help="Another processor than this one: vnni, avx2 or arm; speed is not measured there."),
]
Metric = Annotated[str | None, typer.Option(help="Of labelled rows: macro_f1, accuracy, …; macro_f1 by default.")]
Ready = Annotated[str | None, typer.Option(help="A ready recipe, made alone: fast, balanced or extreme.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of everything random.")]
Plan = Annotated[bool, typer.Option("--dry-run", help="Say what would be tried and roughly how long; write nothing.")]


@app.command()
def shrink(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or Hub id of a fine-tuned classifier.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the search.")],
    test: Test = None,
    text: Text = None,
    pair: Pair = None,
    label: Label = None,
    names: Names = None,
    label_separator: Separator = None,
    retain: Retain = None,
    speedup: Speedup = None,
    max_size_mb: Size = None,
    time: Time = "30m",
    on: Device = "cpu",
    processor: Processor = None,
    metric: Metric = None,
    recipe: Ready = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    max_length: MaxLength = None,
    seed: Seed = 0,
    resume: Resume = False,
    dry_run: Plan = False,
    as_json: AsJson = False,
) -> None:
    """Make a fine-tuned model fast: the best one found under a budget, proved on rows held back.

    Exit code 0 if the budget is met, 3 if not; the best model found is written in both cases.
    """
    given = dict(locals())
    for name in ("resume", "dry_run", "as_json", "time", "on", "names"):
        del given[name]
    request = _request(given, names=names or [], time=time, on=on)
    if dry_run:
        _print_plan(request, as_json)
    else:
        _search(request, resume, as_json)


def _request(given: dict[str, Any], *, names: list[str], time: str, on: str) -> ShrinkRequest:
    """Make the request of the options; those that are not named here are called as its fields are."""
    from plankwise.data.given.labels import read_names
    from plankwise.search.shrink.clock import parse_duration
    from plankwise.search.shrink.request import ShrinkRequest

    data, test = (tuple(given.pop(name) or ()) for name in ("data", "test"))
    return ShrinkRequest(
        data=data, test=test, names=read_names(names), seconds=parse_duration(time), device=on, **given
    )


def _print_plan(request: ShrinkRequest, as_json: bool) -> None:
    from plankwise.cli.search_tables import shrink_plan_table
    from plankwise.cli.tables import print_table
    from plankwise.search.shrink.plan import plan

    rows = plan(request)
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        print_table(shrink_plan_table(rows))


def _search(request: ShrinkRequest, resume: bool, as_json: bool) -> None:
    from plankwise.cli.live import live_table
    from plankwise.cli.search_tables import print_outcome
    from plankwise.search.shrink.document import lines_of
    from plankwise.search.shrink.shrink import shrink as search

    with live_table(shown=not as_json) as on_progress:
        document = search(request, resume=resume, on_progress=on_progress)
    print_outcome(document, lines_of(document, request.out), as_json)
