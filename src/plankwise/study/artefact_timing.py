"""How fast artefacts are on this machine: in turns, on real texts, batched as prediction does it, within seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from plankwise.deploy.batches import TOKENS_PER_BATCH, Text
from plankwise.deploy.deployed import Deployed, open_model
from plankwise.deploy.manifest import Timing
from plankwise.study.figures import Figures
from plankwise.study.load import Watch, load_warnings
from plankwise.study.workload import workload

logger = logging.getLogger(__name__)
ROUNDS = 5
SECONDS = 30.0  # about what all rounds of all artefacts may take
TEXTS = (8, 64)  # fewest and most that are timed
PROBED = 4  # texts that tell how many can be timed


def time_artefacts(folders: Mapping[str, Path], texts: Sequence[Text]) -> dict[str, Timing]:
    """Time artefacts in throughput mode on all cores, all of them in every round.

    Args:
        folders: of the artefacts, by name; fp32 of a runtime is named as in `openvino fp32`.
        texts: to run, in order of preference; as many are used as `SECONDS` allow.
    """
    opened = {name: open_model(folder, "throughput") for name, folder in folders.items()}
    used = texts[: _affordable(opened, texts)]
    logger.info("timing %s on %d texts, about %.0f s at most", ", ".join(opened), len(used), SECONDS)
    work = {name: workload(each.manifest, each.tokenizer, used, TOKENS_PER_BATCH) for name, each in opened.items()}
    plain = [name for name, each in opened.items() if each.manifest.precision == "fp32"]
    with Watch() as watch:
        figures = Figures(plain, {}, ROUNDS, SECONDS).throughput(opened, work)
    threads = max(each.runtime.threads for each in opened.values())
    warnings = tuple(load_warnings(watch.load, threads))
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


def _affordable(opened: Mapping[str, Deployed], texts: Sequence[Text]) -> int:
    """Count the texts that all can run in `ROUNDS`, before which each meets them twice, judged by a few texts."""
    few = texts[:PROBED]
    seconds = 0.0
    for each in opened.values():
        batches = workload(each.manifest, each.tokenizer, few, TOKENS_PER_BATCH).batches
        times = []
        for _ in range(2):  # the first prepares the shapes
            start = time.perf_counter()
            for batch in batches:
                each.runtime(batch)
            times.append(time.perf_counter() - start)
        seconds += min(times) / len(few)
    return int(np.clip(SECONDS / ((ROUNDS + 2) * max(seconds, 1e-9)), *TEXTS))
