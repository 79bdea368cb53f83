"""What `shrink` leaves, beyond what all searches do: a page, and what the command line prints."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plankwise.core.files import write_json, write_text
from plankwise.core.intervals import format_interval
from plankwise.data.metric_names import OF_SCORES, agreement_name
from plankwise.deploy.manifest import is_artefact, read_manifest
from plankwise.encoder.checkpoint import load_config
from plankwise.encoder.shapes import is_plain
from plankwise.report.artefact_card import write_artefact_card
from plankwise.report.model_card import FILE, card_of_lines
from plankwise.report.templates import render
from plankwise.search.budget.candidate import Outcome
from plankwise.search.budget.conclusion import PICTURE, read_document, remove_models
from plankwise.search.budget.evaluation import title_of
from plankwise.search.budget.finish import ARTEFACT, MODEL, RECIPE

DOCUMENT, PAGE = "shrink.json", "report.html"


def finished(out: Path, seconds: float) -> dict[str, Any] | None:
    """Return the document of a search that is complete; None if there is none, or if there is more to do.

    Args:
        out: the folder.
        seconds: that the search may take now. One whose budget was not met resumes if that is more than before.
    """
    document = read_document(out / DOCUMENT)
    if document is None or document["verdict"]["met"] or seconds <= document["seconds_allowed"]:
        return document
    return None


def write_document(out: Path, document: Mapping[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Write page and document, and remove what a search that met its budget needs no more."""
    picture = base64.b64encode((out / PICTURE).read_bytes()).decode()
    shown = {"found": document, "outcomes": outcomes, "picture": picture}
    write_text(out / PAGE, render("shrink.html.j2", **shown, agreement_name=agreement_name(document["metric"])))
    write_json(out / DOCUMENT, document)
    _write_cards(out, document)
    if document["verdict"]["met"]:
        remove_models(out)


def _write_cards(out: Path, document: Mapping[str, Any]) -> None:
    """Write the card of the artefact, and the same beside the model in Transformers' format."""
    artefact, kept = out / ARTEFACT, lines_of(document, out)[:-1]  # the last line names paths of this machine
    if is_artefact(artefact):
        write_artefact_card(artefact, read_manifest(artefact), document["model"], kept=kept)
    plain = is_plain(load_config(str(out / MODEL)))
    write_text(out / MODEL / FILE, card_of_lines(document["model"], kept, plain=plain))


def lines_of(document: Mapping[str, Any], out: Path) -> list[str]:
    """Return what the command line prints: the verdict first, then what was measured and where the files are."""
    held_back, original = document["held_back"], document["original"]
    faster = ", ".join(f"{each['value']:.2f}× {name}" for name, each in held_back["speedup"].items())
    plain = [each for each in document["candidates"] if not each["candidate"]["steps"]]
    int8 = [each for each in plain if each["candidate"]["precision"] == "int8"]
    said = [
        f"{title_of(each['candidate']['runtime'], 'int8')}: {each['speedup']['value']:.2f}×, "
        f"retained {each['retained']['value']:.3f}"
        for each in int8
    ]
    return [
        document["verdict"]["text"],
        f"measured is {document['measured']}; as fast as the original: {faster}",
        *([f"int8 alone, with no other compression: {'; '.join(said)}"] if said else []),
        f"original: {document['metric']} {format_interval(**original['interval'])} on development, "
        f"{'the mean of train' if document['metric'] in OF_SCORES else 'majority class'} {original['majority']:.3f}",
        *document["notes"],
        f"{out / MODEL}, {out / ARTEFACT}, {out / RECIPE}, {out / PAGE}",
    ]
