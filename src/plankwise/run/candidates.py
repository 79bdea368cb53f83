"""The runtime and precision of an export: what was named, what suits a processor, or what is fastest here.

What is fastest depends on the processor: with VNNI static int8 in OpenVINO is several times as fast as fp32, with AVX2
alone it is slower than fp32. So all candidates are exported, compared with torch, and timed in turns.
"""

from __future__ import annotations

import logging
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plankwise.core.errors import ModelError, one_of, suggest
from plankwise.core.files import atomic_folder
from plankwise.core.hardware import saturates
from plankwise.data.batching.inputs import Text
from plankwise.deploy.export.export import INTEGERS, PRECISIONS, export, missing_packages
from plankwise.deploy.manifest import RUNTIMES, Manifest, RuntimeName, Timing, write_manifest
from plankwise.encoder.checkpoint import load_config, load_trained, save
from plankwise.encoder.dequantized import dequantized
from plankwise.encoder.quantized import is_quantized
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.benchmark.artefact_timing import time_artefacts
from plankwise.evaluation.benchmark.models import Export

logger = logging.getLogger(__name__)
AUTO = "auto"
FP32 = "fp32"
FEW = 8  # texts on which an artefact that is only timed is compared with torch
Timer = Callable[[Mapping[str, Path], Sequence[Text]], dict[str, Timing]]


@dataclass(frozen=True)
class Candidate:
    """A runtime and its precision; their text form is as in `openvino int8`."""

    runtime: RuntimeName
    precision: str

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


OPENVINO_INT8, OPENVINO_FP32 = Candidate("openvino", "int8"), Candidate("openvino", FP32)
ONNX_INT8, ONNX_FP32 = Candidate("onnx", "int8"), Candidate("onnx", FP32)
# What is known of processors, best first: VNNI and AVX2 as measured on BERT-base and e5-small; that OpenVINO has few
# int8 kernels for ARM, where ONNX Runtime uses its dot products.
PROCESSORS: dict[str, tuple[Candidate, ...]] = {
    "vnni": (OPENVINO_INT8, ONNX_INT8, OPENVINO_FP32, ONNX_FP32),
    "avx2": (ONNX_INT8, OPENVINO_FP32, ONNX_FP32, OPENVINO_INT8),
    "arm": (ONNX_INT8, OPENVINO_FP32, ONNX_FP32, OPENVINO_INT8),
}


def this_processor() -> str:
    """Return the kind of this processor, a key of `PROCESSORS`."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm"
    return "avx2" if saturates() else "vnni"


def candidates(to: str, precision: str, processor: str | None = None) -> list[Candidate]:
    """List the runtimes and precisions to choose from, of those that are installed; one if both are named.

    Args:
        to: a runtime, or `auto`.
        precision: of that runtime, or `auto`.
        processor: one of `PROCESSORS`, whose best candidate then comes first. Without it the order is that of VNNI, and
            does not matter: candidates are timed.

    Raises:
        ModelError: if there is no such runtime, precision or processor, or nothing is installed.
    """
    one_of(to, (*RUNTIMES, AUTO), "runtime")
    order = PROCESSORS["vnni" if processor is None else one_of(processor, tuple(PROCESSORS), "processor")]
    if precision == AUTO:
        found = [each for each in order if to in (AUTO, each.runtime)] or [Candidate("torch", FP32)]
    elif to == AUTO:
        runtimes = [each for each in dict.fromkeys(each.runtime for each in order) if precision in PRECISIONS[each]]
        found = [Candidate(each, precision) for each in runtimes]
        if not found:
            known = sorted({each for runtime in ("openvino", "onnx") for each in PRECISIONS[runtime]} | {AUTO})
            raise ModelError(f"no precision '{precision}'; {suggest(precision, known)}")
    else:
        return [Candidate(one_of(to, RUNTIMES, "runtime"), precision)]
    return [each for each in found if not missing_packages(each.runtime)] or found[:1]


def references(wanted: Sequence[Candidate]) -> list[Candidate]:
    """List what is timed for comparison, if installed: fp32 in the same runtime and, of one, the other runtime."""
    others = [Candidate(each.runtime, FP32) for each in wanted]
    if len(wanted) == 1:
        [own] = wanted
        elsewhere = [each for each in PRECISIONS if each not in (own.runtime, "torch")]
        others += [Candidate(each, own.precision) for each in elsewhere if own.precision in PRECISIONS[each]]
    new = dict.fromkeys(each for each in others if each not in wanted)
    return [each for each in new if not missing_packages(each.runtime)]


def export_and_time(
    model: str,
    out: Path,
    wanted: Sequence[Candidate],
    others: Sequence[Candidate],
    texts: Sequence[Text],
    *,
    options: Mapping[str, Any],
    exporter: Export = export,
    timer: Timer = time_artefacts,
) -> Manifest:
    """Export all candidates, time them in turns, and keep the fastest of `wanted`.

    Args:
        model: folder or Hub id.
        out: the artefact's folder.
        wanted: candidates, the best guess first. The fault of a single one is raised; of several, those that fail are
            left out.
        others: references, only timed for comparison; those that fail are left out.
        texts: to time on.
        options: of `export`.
        exporter: makes an artefact.
        timer: times artefacts.

    Raises:
        PlankwiseError: if none of `wanted` can be exported; nothing is written then.
    """
    with atomic_folder(out) as folder:
        work = folder / "candidates"
        made = _made(model, work, wanted, others, options=options, exporter=exporter)
        timings = timer({str(each): work / str(each) for each in made}, texts)
        chosen = min((each for each in wanted if each in made), key=lambda each: timings[str(each)].ms_per_text)
        manifest = made[chosen].model_copy(update={"timing": timings[str(chosen)]})
        for path in list((work / str(chosen)).iterdir()):
            path.rename(folder / path.name)
        shutil.rmtree(work)
        write_manifest(folder, manifest)
    _warn_if_slow(chosen, timings)
    return manifest


def _made(
    model: str,
    work: Path,
    wanted: Sequence[Candidate],
    others: Sequence[Candidate],
    *,
    options: Mapping[str, Any],
    exporter: Export,
) -> dict[Candidate, Manifest]:
    made: dict[Candidate, Manifest] = {}
    faults: dict[Candidate, Exception] = {}
    quantized = is_quantized(load_config(model))
    for each in (*wanted, *others):
        if each in others and not made:
            raise faults[wanted[0]]
        logger.info("exporting to %s", each)
        try:
            source = _float_twin(model, work) if quantized and each.precision == FP32 else model
            own = {**options} if each in wanted else {**options, "texts": options["texts"][:FEW]}
            if each.precision not in INTEGERS and [each] != [*wanted]:  # nobody named it
                own["portable"] = None
            made[each] = exporter(source, work / str(each), to=each.runtime, precision=each.precision, **own)
        except Exception as error:  # converters raise errors of any kind
            if len(wanted) == 1 and each in wanted:
                raise
            faults[each] = error
    if not made:
        raise faults[wanted[0]]
    for each, fault in faults.items():
        logger.warning("%s is left out: %s", each, (str(fault).strip() or type(fault).__name__).splitlines()[0])
    return made


def _float_twin(model: str, work: Path) -> Path:
    """Write the fp32 model that a quantized one is compared with; an export cannot make it of int8 weights."""
    folder = work / "float"
    if not folder.exists():
        save(dequantized(load_trained(model)), load_tokenizer(model), folder)
    return folder


def _warn_if_slow(chosen: Candidate, timings: Mapping[str, Timing]) -> None:
    """Warn if fp32 in the same runtime is faster, and name all that is faster."""
    own, plain = timings[str(chosen)], timings.get(f"{chosen.runtime} {FP32}")
    if own.over_fp32 is None or own.over_fp32 >= 1 or plain is None:
        return
    faster = {name: each.ms_per_text for name, each in timings.items() if each.ms_per_text < own.ms_per_text}
    named = ", ".join(f"{name} {value:.3g}" for name, value in sorted(faster.items(), key=lambda pair: pair[1]))
    logger.warning(
        "%s is slower than fp32 here: %.3g ms a text against %.3g; faster: %s",
        chosen,
        own.ms_per_text,
        plain.ms_per_text,
        named or "nothing by the median",
    )
