"""Verbs that make a task's data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from plankwise.cli.options import LARGEST_SEED, AsJson, app, print_document

data_app = typer.Typer(no_args_is_help=True, help="Make a task's data.")
app.add_typer(data_app, name="data")
NewFolder = Annotated[Path, typer.Option("--out", help="A folder that is new or empty.")]


@data_app.command()
def mimic(
    mimic_dir: Annotated[Path, typer.Option(help="Folder with MIMIC-III's tables, .csv or .csv.gz.")],
    out: NewFolder,
    definition: Annotated[str, typer.Option(help="admission-notes or first-48h.")] = "admission-notes",
    leak_filter: Annotated[
        str,
        typer.Option(
            "--filter",
            help="What finds told deaths: 2 (many wordings, about the patient and no relative), or published (the few "
            "wordings of van Aken et al. 2021, and none for first-48h).",
        ),
    ] = "2",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Deals patients out to the splits.")] = 0,
    memory: Annotated[
        int, typer.Option(max=1_000_000_000, help="MB that DuckDB may use; the rest goes to disk, beside --out.")
    ] = 512,
    as_json: AsJson = False,
) -> None:
    """Make in-hospital mortality out of MIMIC-III's notes: train.jsonl, dev.jsonl, test.jsonl and counts.json."""
    from plankwise.cli.tables import counts_table, print_table
    from plankwise.data.mimic.extraction import extract

    counts = extract(mimic_dir, out, definition, seed, memory, progress=not as_json, leak_filter=leak_filter)
    if as_json:
        typer.echo(json.dumps(counts))
    else:
        print_table(counts_table(counts, out))


@data_app.command()
def synthetic_mimic(
    out: NewFolder,
    admissions: Annotated[int, typer.Option(max=10_000_000, help="How many admissions.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="The same seed gives the same tables.")] = 0,
    marker: Annotated[str, typer.Option(help="A word for every note, to search a run's outputs for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write tables of MIMIC-III's schema with made-up patients, to try things out without access to real ones."""
    from plankwise.data.mimic.synthetic import write_synthetic

    rows = write_synthetic(out, admissions, seed, marker, progress=not as_json)
    print_document(rows, as_json, [f"{out / table}.csv: {count} rows" for table, count in rows.items()])
