"""Is the artefact still the model? Both on the same inputs, before anything is handed out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from plankwise.core.errors import ModelError
from plankwise.data.batching.inputs import Inputs
from plankwise.deploy.manifest import Check, Manifest, Parity
from plankwise.deploy.runtimes import Logits, Probabilities, Runtime, probabilities

TOKENS_PER_BATCH = 1024
CHECK_TEXTS, CHECK_TOKENS = 4, 12
# Largest change of a probability that is handed out, by precision: for the same operations in another order,
# and for 8 and for 4 bits.
TOLERANCES = {
    "fp32": 0.001,
    "bf16": 0.05,
    "fp16": 0.05,
    "int8": 0.25,
    "int8-dynamic": 0.25,
    "int8-weights": 0.25,
    "int4-weights": 0.5,
}
# Largest mean change for a model that is quantized already, whose numbers the artefact has to repeat. Single texts may
# change by more, since a number on the edge between two steps may fall to either side, and layers carry that on: on
# e5-small 0.004 to 0.010 on average, 0.14 at most. Sums that saturate changed 0.042 on average.
OWN_NUMBERS = 0.02
ALONE_TEXTS = 16  # are run once more without their batch


def random_inputs(manifest: Manifest, vocabulary: int, tokens: int = CHECK_TOKENS, seed: int = 0) -> Inputs:
    """Draw token ids, [4, tokens]; the last two texts are padded from the middle on."""
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
    source: str,
    allowed: float,
    on_average: float = 1.0,
) -> Parity:
    """Run the torch model and the artefact on the same batches.

    Args:
        model: in torch.
        runtime: runs the artefact.
        batches: of inputs.
        manifest: of the artefact.
        source: where the texts come from, for messages.
        allowed: largest change of a probability.
        on_average: largest mean of these changes.

    Raises:
        ModelError: if probabilities change by more than is allowed, or are none at all.
    """
    pairs = [(reference(model, batch), runtime(batch)) for batch in batches]
    before, after = (np.concatenate(side) for side in zip(*pairs, strict=True))
    old, new = probabilities(before, manifest.kind), probabilities(after, manifest.kind)
    changes = np.abs(old - new)
    change, mean = float(changes.max()), float(changes.mean())
    for what, found, most in (("a probability", change, allowed), ("probabilities on average", mean, on_average)):
        if not found <= most:  # a NaN is no match either
            raise ModelError(
                f"the {manifest.runtime} {manifest.precision} model changes {what} by {found:.4f} on {len(before)} "
                f"texts ({source}); allowed: {most}. Nothing was written; take another precision or a larger "
                "--tolerance"
            )
    return Parity(
        texts=len(before),
        source=source,
        logit_error=float(np.abs(before - after).max()),
        probability_change=change,
        mean_change=mean,
        agreement=_agreement(old, new, manifest.kind),
        tolerance=allowed,
        neighbour_change=neighbour_change(runtime, batches, manifest),
    )


def neighbour_change(runtime: Runtime, batches: Sequence[Inputs], manifest: Manifest) -> float:
    """Compute by how much a probability of a text changes with its batch, over at most 16 texts of all batches."""
    largest, each = 0.0, -(-ALONE_TEXTS // len(batches))
    for batch in batches[:ALONE_TEXTS]:
        together = probabilities(runtime(batch), manifest.kind)
        lengths = batch.get("attention_mask", np.ones_like(batch["input_ids"])).sum(axis=1)
        for row in np.argsort(lengths, kind="stable")[:each]:  # the shortest, beside which there is most padding
            alone = {name: values[row : row + 1, : int(lengths[row])] for name, values in batch.items()}
            change = np.abs(probabilities(runtime(alone), manifest.kind)[0] - together[row])
            largest = max(largest, float(change.max()))
    return largest


def check_of(runtime: Runtime, inputs: Inputs) -> Check:
    """Keep random inputs with the artefact's answers, for machines with other instructions."""
    listed = {name: value.tolist() for name, value in inputs.items()}
    return Check(inputs=listed, logits=runtime(inputs).tolist())


def _agreement(old: Probabilities, new: Probabilities, kind: str) -> float:
    if kind == "multi_label":
        return float(((old > 0.5) == (new > 0.5)).all(axis=1).mean())
    return float((old.argmax(axis=1) == new.argmax(axis=1)).mean())
