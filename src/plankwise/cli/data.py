"""Verbs that make the data of a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from plankwise.cli.options import MAX_SEED, AsJson, app, print_document

data_app = typer.Typer(no_args_is_help=True, help="Make the data of a task.")
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
            help="How mentioned deaths are found: 2 (many wordings, of the patient and not of relatives), or published "
            "(the few wordings of van Aken et al. 2021, and none for first-48h).",
        ),
    ] = "2",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Assigns patients to the splits.")] = 0,
    memory: Annotated[
        int, typer.Option(max=1_000_000_000, help="MB that DuckDB may use; the rest goes to disk, next to --out.")
    ] = 512,
    as_json: AsJson = False,
) -> None:
    """Make the task of in-hospital mortality from MIMIC-III's notes: three splits as .jsonl, and counts.json."""
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
    admissions: Annotated[int, typer.Option(max=10_000_000, help="Number of admissions.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same tables.")] = 0,
    marker: Annotated[str, typer.Option(help="A word put into every note, to search the outputs of a run for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write tables of MIMIC-III's schema with made-up patients, to try things out without access to real data."""
    from plankwise.data.mimic.synthetic import write_synthetic

    rows = write_synthetic(out, admissions, seed, marker, progress=not as_json)
    print_document(rows, as_json, [f"{out / table}.csv: {count} rows" for table, count in rows.items()])
