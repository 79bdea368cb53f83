"""An artefact on another class of processor than the one that exported it: its stored answers are compared first.

Processors of one class have the same instructions for products in 8 and 16 bits, so that a runtime chooses the same
kernels on them. On another class it may choose others: without 8-bit dot products, u8·s8 products are added in 16 bits
and saturate, so that an intact artefact may choose other labels.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from plankwise.core.errors import ModelError
from plankwise.core.hardware import CPU_FLAGS
from plankwise.deploy.manifest import Check, Manifest
from plankwise.deploy.runtimes import Runtime

logger = logging.getLogger(__name__)
UNCHANGED = 1e-4  # a change of a probability that another order of fp32 sums explains


@dataclass(frozen=True)
class _Found:
    """What stored inputs have shown: the largest change of a probability, and how many keep their labels."""

    change: float
    same: int
    inputs: int


def check_machine(manifest: Manifest, runtime: Runtime, flags: Collection[str]) -> None:
    """Run an artefact's stored inputs if this processor is of another class, and say what they show.

    Args:
        manifest: of the artefact.
        runtime: that runs it on this machine.
        flags: instructions of this processor.

    Raises:
        ModelError: if a probability differs by more than the tolerance of the export.
    """
    why = _difference(manifest, flags)
    if why is None:
        return
    stored = {"the compared texts": manifest.rows, "random input": manifest.check}
    found = {name: _run_again(manifest, runtime, check) for name, check in stored.items() if check is not None}
    if manifest.parity is None or not found:
        logger.warning("%s; its answers cannot be checked: the artefact has no stored ones", why)
        return
    words = manifest.answer.wording
    change = max((each.change for each in found.values()), key=lambda value: (np.isnan(value), value))
    if not change <= manifest.parity.tolerance:  # true of NaN, too
        portable = ". Export it again with portable weights" if manifest.needs else ". Export it again here"
        raise ModelError(
            f"{why}, and the model's {words.several} differ by {change:.3f}{words.unit} from those it was exported "
            f"with; allowed: {manifest.parity.tolerance}{portable}"
        )
    shown = "; ".join(
        f"on {name} {words.several} differ by at most {each.change:.4f}{words.unit}, same {words.same} {each.same} of "
        f"{each.inputs}"
        for name, each in found.items()
    )
    changed = change > UNCHANGED or any(each.same < each.inputs for each in found.values())
    logger.log(logging.WARNING if changed or _lacks(manifest, flags) else logging.INFO, "%s: %s", why, shown)


def _lacks(manifest: Manifest, flags: Collection[str]) -> bool:
    """Return whether the processor has none of the instructions that an artefact needs; any one of them will do."""
    return bool(manifest.needs) and set(manifest.needs).isdisjoint(flags)


def _difference(manifest: Manifest, flags: Collection[str]) -> str | None:
    """Describe how this processor differs from the exporting one; None if they are of one class."""
    if _lacks(manifest, flags):
        lacking = ", ".join(manifest.needs)
        return f"this processor has none of {lacking}, which the model was exported for: its sums saturate"
    before, here = set(manifest.cpu.get("flags", ())), {name for name in CPU_FLAGS if name in flags}
    if before == here:
        return None
    return f"the model was exported on a processor with {_named(before)}, and this one has {_named(here)}"


def _named(flags: set[str]) -> str:
    return ", ".join(name for name in CPU_FLAGS if name in flags) or "no instructions that are known"


def _run_again(manifest: Manifest, runtime: Runtime, check: Check) -> _Found:
    inputs = {name: np.array(rows, dtype=np.int64) for name, rows in check.inputs.items()}
    before, after = np.array(check.logits, dtype=np.float32), np.asarray(runtime(inputs))
    spread = 1.0 if manifest.parity is None else manifest.parity.spread
    change = float(manifest.answer.changes(before, after, spread).max())
    same = round(manifest.answer.agreement(*map(manifest.answer.probabilities, (before, after))) * len(before))
    return _Found(change, same, len(before))
