"""How fast artefacts are on this machine: timed in turns, on real texts, in batches of prediction, within seconds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from plankwise.data.batching.inputs import Text
from plankwise.data.batching.token_budget import TOKENS_PER_BATCH
from plankwise.deploy.deployed import Deployed, open_model
from plankwise.deploy.manifest import Timing
from plankwise.deploy.runtimes import Mode
from plankwise.evaluation.benchmark.measurements import Measurements
from plankwise.evaluation.benchmark.system_load import LoadMonitor, load_warnings
from plankwise.evaluation.benchmark.workload import affordable, workload

logger = logging.getLogger(__name__)
ROUNDS = 5
SECONDS, FEW = 30.0, 4  # about what all rounds of so many artefacts may take; more artefacts take more
MOST_TEXTS = 64


def time_artefacts(
    folders: Mapping[str, Path], texts: Sequence[Text], *, opener: Callable[[Path, Mode], Deployed] = open_model
) -> dict[str, Timing]:
    """Time artefacts in throughput mode on all cores, all of them in every round.

    Args:
        folders: of the artefacts, by name; the name of fp32 in a runtime is as in `openvino fp32`.
        texts: to run, in order of preference; as many are used as the time allows.
        opener: opens an artefact.
    """
    opened = {name: opener(folder, "throughput") for name, folder in folders.items()}
    # Two passes come before the rounds: a warm-up of each shape, and the untimed turn.
    seconds = SECONDS * max(1.0, len(opened) / FEW)
    used = texts[: min(MOST_TEXTS, affordable(opened, texts, ROUNDS + 2, seconds))]
    logger.info("timing %s on %d texts, about %.0f s at most", ", ".join(opened), len(used), seconds)
    work = {name: workload(each.manifest, each.tokenizer, used, TOKENS_PER_BATCH) for name, each in opened.items()}
    plain = [name for name, each in opened.items() if each.manifest.precision == "fp32"]
    with LoadMonitor() as monitor:
        figures = Measurements(plain, {}, ROUNDS, seconds).throughput(opened, work)
    threads = max(each.runtime.threads for each in opened.values())
    warnings = tuple(load_warnings(monitor.load, threads))
    for warning in warnings:
        logger.warning("%s", warning)
    found = {}
    for name, figure in figures.items():
        over = figure["over"].get(f"{opened[name].manifest.runtime} fp32")
        found[name] = Timing(
            ms_per_text=figure["ms_per_text"],
            over_fp32=None if over is None else over["speedup"],
            spread=None if over is None else over["spread"],
            others={other: each["ms_per_text"] for other, each in figures.items() if other != name},
            texts=len(used),
            rounds=figure["rounds"],
            threads=opened[name].runtime.threads,
            warnings=warnings,
        )
    return found
