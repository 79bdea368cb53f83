"""Parity: the artefact and the torch model on the same inputs, compared before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from plankwise.core.errors import ModelError
from plankwise.data.batching.inputs import Inputs
from plankwise.deploy.manifest import DYNAMIC, Check, Manifest, Parity, neighbour_limit
from plankwise.deploy.runtimes import Logits, Runtime

CHECK_TEXTS, CHECK_TOKENS = 4, 12
ROW_TOKENS = 64  # longer texts are not stored, if there are others: the manifest is to stay readable
# Largest change of a probability that is accepted, by precision: for the same operations in another order, and for 16,
# 8 and 4 bits.
TOLERANCES = {
    "fp32": 0.001,
    "bf16": 0.05,
    "fp16": 0.05,
    "int8": 0.25,
    "int8-dynamic": 0.25,
    "int8-weights": 0.25,
    "int4-weights": 0.5,
}
# Largest mean change of a model that is quantized already, because the artefact has to repeat its numbers. Single texts
# may change by more: a number on the edge between two steps may be rounded to either, and later layers amplify that. On
# e5-small the mean was 0.004 to 0.010, the largest change 0.14. Sums that saturate changed probabilities by 0.042 on
# average.
QUANTIZED_MEAN = 0.02
TEXTS_ALONE = 16  # run a second time, each without its batch


@dataclass(frozen=True)
class Limits:
    """The differences between an artefact and its model that are accepted.

    Attributes:
        change: largest change of a probability.
        mean_change: largest mean of these changes; 1 allows any.
    """

    change: float
    mean_change: float = 1.0


def limits_of(precision: str, tolerance: float | None, quantized: bool) -> Limits:
    """Return the accepted differences.

    Args:
        precision: of the artefact, a key of `TOLERANCES`.
        tolerance: largest change of a probability, if the user has set one; no other limit holds then.
        quantized: whether the model is quantized already.
    """
    if tolerance is not None:
        return Limits(tolerance)
    return Limits(TOLERANCES[precision], QUANTIZED_MEAN if quantized else 1.0)


def random_inputs(manifest: Manifest, vocabulary: int, tokens: int = CHECK_TOKENS, seed: int = 0) -> Inputs:
    """Draw token ids, [4, tokens]; the last two texts are only half as long, and padded."""
    draw = np.random.default_rng(seed)
    shape = (CHECK_TEXTS, tokens)
    made = {name: np.full(shape, fill, dtype=np.int64) for name, fill in manifest.padding.items()}
    for row in range(CHECK_TEXTS):
        length = tokens if row < CHECK_TEXTS // 2 else tokens // 2 + row % 2
        made["input_ids"][row, :length] = draw.integers(0, vocabulary, length)
        if "attention_mask" in made:
            made["attention_mask"][row, :length] = 1
    return made


@torch.inference_mode()
def reference(model: PreTrainedModel, batch: Inputs) -> Logits:
    """Compute the torch model's logits, [texts, labels], in its own precision."""
    placed = {name: torch.from_numpy(np.asarray(value)).to(model.device) for name, value in batch.items()}
    logits: Logits = model(**placed).logits.float().cpu().numpy()
    return logits


def measure(
    model: PreTrainedModel,
    runtime: Runtime,
    batches: Sequence[Inputs],
    manifest: Manifest,
    *,
    source: str,
    limits: Limits,
) -> Parity:
    """Run the torch model and the artefact on the same batches and compare their answers.

    Args:
        model: in torch.
        runtime: of the artefact.
        batches: of inputs.
        manifest: of the artefact.
        source: origin of the texts, for messages.
        limits: differences that are accepted.

    Raises:
        ModelError: if probabilities change by more than that, or are NaN, or in fp32 depend on the other texts.
    """
    pairs = [(reference(model, batch), runtime(batch)) for batch in batches]
    before, after = (np.concatenate(side) for side in zip(*pairs, strict=True))
    spread = manifest.answer.spread(before)
    changes = manifest.answer.changes(before, after, spread)
    change, mean = float(changes.max()), float(changes.mean())
    words = manifest.answer.wording
    for what, found, allowed in (
        (words.one, change, limits.change),
        (f"{words.several} on average", mean, limits.mean_change),
    ):
        if not found <= allowed:  # true of NaN, too
            raise ModelError(
                f"the {manifest.runtime} {manifest.precision} model changes {what} by {found:.4f}{words.unit} on "
                f"{len(before)} texts ({source}); allowed: {allowed}. Nothing was written; choose another precision or "
                "a larger --tolerance"
            )
    return Parity(
        texts=len(before),
        source=source,
        logit_error=float(np.abs(before - after).max()),
        probability_change=change,
        mean_change=mean,
        agreement=manifest.answer.agreement(*map(manifest.answer.probabilities, (before, after))),
        tolerance=limits.change,
        neighbour_change=_checked_neighbour_change(runtime, batches, manifest, spread),
        spread=spread,
    )


def neighbour_change(runtime: Runtime, batches: Sequence[Inputs], manifest: Manifest, spread: float) -> float:
    """Compute the largest change of a text's answer with its batch, over at most 16 texts of all batches."""
    largest, each = 0.0, -(-TEXTS_ALONE // len(batches))
    for batch in batches[:TEXTS_ALONE]:
        together = runtime(batch)
        lengths = batch.get("attention_mask", np.ones_like(batch["input_ids"])).sum(axis=1)
        for row in np.argsort(lengths, kind="stable")[:each]:  # the shortest texts, which have the most padding
            alone = {name: values[row : row + 1, : int(lengths[row])] for name, values in batch.items()}
            change = manifest.answer.changes(together[row : row + 1], runtime(alone), spread)
            largest = max(largest, float(change.max()))
    return largest


def _checked_neighbour_change(runtime: Runtime, batches: Sequence[Inputs], manifest: Manifest, spread: float) -> float:
    """Compute the `neighbour_change`, and refuse an fp32 model whose answers depend on their batch."""
    change, limit = neighbour_change(runtime, batches, manifest, spread), neighbour_limit(manifest.precision)
    if manifest.precision == "fp32" and not change <= limit:
        raise ModelError(
            f"the {manifest.runtime} fp32 model changes {manifest.answer.wording.one} by {change:.1e} with the other "
            f"texts of the batch; allowed: {limit}. Nothing was written; choose another runtime"
        )
    return change


def neighbour_caveats(parity: Parity, precision: str) -> tuple[str, ...]:
    """Return what to say of answers that depend on the batch by more than `neighbour_limit`."""
    change, limit = parity.neighbour_change, neighbour_limit(precision)
    if change is None or change <= limit or precision == DYNAMIC:  # dynamic int8 has a caveat of its own
        return ()
    return (f"a text's probabilities change by up to {change:.3f} with the other texts of its batch; usual: {limit}",)


def real_rows(batches: Sequence[Inputs], manifest: Manifest) -> Inputs:
    """Choose four texts of these batches, from the longest to the shortest, and pad them to one batch."""
    found = []
    for batch in batches:
        lengths = batch.get("attention_mask", np.ones_like(batch["input_ids"])).sum(axis=1)
        found += [{name: each[row, :length] for name, each in batch.items()} for row, length in enumerate(lengths)]
    found.sort(key=lambda row: len(row["input_ids"]))
    short = [row for row in found if len(row["input_ids"]) <= ROW_TOKENS] or found[:1]
    places = np.linspace(len(short) - 1, 0, min(CHECK_TEXTS, len(short))).round().astype(int).tolist()
    chosen = [short[place] for place in places]
    longest = len(chosen[0]["input_ids"])
    return {
        name: np.stack([np.pad(row[name], (0, longest - len(row[name])), constant_values=fill) for row in chosen])
        for name, fill in manifest.padding.items()
    }


def check_of(runtime: Runtime, inputs: Inputs) -> Check:
    """Record inputs and the artefact's logits for them."""
    listed = {name: value.tolist() for name, value in inputs.items()}
    return Check(inputs=listed, logits=runtime(inputs).tolist())
