"""The card of an artefact: `README.md` beside it, from its manifest and from the card of its model, if it has one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from huggingface_hub.repocard import RepoCard

from plankwise.core.files import folder_bytes, write_text
from plankwise.core.intervals import format_interval
from plankwise.deploy.manifest import FILE_NAME, Manifest
from plankwise.report.model_card import CREDENTIALED, FILE, cell
from plankwise.report.templates import format_size

PREDICT = """\
# pip install numpy tokenizers {package}
from predict import Model

model = Model(".")
print(list(model.predict(["a text", "another"])))
"""
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime", "torch": "torch"}


def write_artefact_card(
    artefact: Path, manifest: Manifest, model: str, *, access: str | None = None, kept: Sequence[str] = ()
) -> None:
    """Write the card of an artefact.

    Args:
        artefact: its folder.
        manifest: of the artefact.
        model: folder or Hub id of the model that was exported; a card in that folder is taken over.
        access: of the texts that the model was trained on, as far as that is known.
        kept: what was measured of the artefact itself, a line each.
    """
    write_text(artefact / FILE, artefact_card(artefact, manifest, model, access=access, kept=kept))


def artefact_card(
    artefact: Path, manifest: Manifest, model: str, *, access: str | None = None, kept: Sequence[str] = ()
) -> str:
    """Return the card: metadata, what the artefact is, how far it is from its model and how fast, and how to run it."""
    card = Path(model) / FILE
    known = RepoCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True) if card.is_file() else None
    metadata: Any = ModelCardData(pipeline_tag="text-classification", tags=["plankwise"])
    if known is not None:
        metadata = known.data
    if access == CREDENTIALED:
        metadata.access = access
    own = artefact / FILE
    files = folder_bytes(artefact) - (own.stat().st_size if own.is_file() else 0)
    lines = [] if known is None else known.text.strip().splitlines()
    title = lines[0] if lines else "# An artefact of plankwise"
    rest = "\n".join(lines[1:]).partition("## How to load it")[0]
    parts = [
        f"---\n{metadata.to_yaml()}\n---",
        f"{title}, {manifest.runtime} {manifest.precision}",
        f"This folder runs without plankwise: {format_size(files)}, for {manifest.runtime}. It answers with "
        f"{', '.join(cell(each) for each in manifest.labels)}.",
        "" if not kept else "## What was kept\n\n" + "\n".join(f"- {cell(each)}" for each in kept),
        _parity(manifest),
        _timing(manifest),
        "\n".join(f"- {cell(each)}" for each in manifest.caveats),
        f"## How to run it\n\n```python\n{PREDICT.format(package=PACKAGES[manifest.runtime])}```\n\n`{FILE_NAME}` says "
        "how texts are read, and on which processor this was measured.",
        "" if not rest.strip() else f"# The model before export\n\n{rest.strip()}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _parity(manifest: Manifest) -> str:
    parity = manifest.parity
    if parity is None:
        return ""
    words = manifest.answer.wording
    return (
        f"Compared with the model in torch fp32 on {parity.texts} inputs ({parity.source}): same {words.same} "
        f"{parity.agreement:.2%}, largest change of {words.one} {parity.probability_change:.4f}{words.unit}."
    )


def _timing(manifest: Manifest) -> str:
    timing, cpu = manifest.timing, manifest.cpu.get("model") or "an unnamed processor"
    if timing is None:
        return f"Exported on {cpu}; it was not timed."
    over = ""
    if timing.over_fp32 is not None and timing.spread is not None:
        faster = format_interval(timing.over_fp32, *timing.spread, digits=2, unit="×")
        over = f", {faster} as fast as fp32 in the same runtime"
    return f"On {cpu}, {timing.threads} threads: {timing.ms_per_text:.3g} ms a text{over}."
