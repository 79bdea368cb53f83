"""What int8 changes of a model's answers on this processor: weights in 7 and in 8 bits, static and dynamic ranges.

Without VNNI the int8 kernels of OpenVINO and ONNX Runtime add pairs of products in 16 bits that saturate. Run it on
processors of both kinds, with `--work` on the same artefacts. The last line is one JSON object:

- saturates: whether this processor lacks int8 instructions that add in 32 bits
- variants.NAME: against fp32 in torch, over all texts: mean_change and largest_change of a probability, same_labels;
  beside, the largest change of a probability between a text alone and the same text in a batch with longer ones; and
  seconds for all texts, meaningful on a quiet machine only

Usage: python benchmarks/int8_arithmetic.py MODEL TEXTS [--texts 400] [--calibrated 128]
         [--work FOLDER] [--only PART ...]

TEXTS has one text per line, or a text and its label separated by a tab. The first ones calibrate and, with labels, fit
a head by logistic regression for a MODEL that has none; the last ones are predicted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from plankwise.core.hardware import environment, saturates
from plankwise.data.batching.inputs import Inputs, Text
from plankwise.data.truncation import Truncation
from plankwise.deploy.export.calibrated import calibrated
from plankwise.deploy.export.export import export
from plankwise.deploy.export.parity import neighbour_change, reference
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import load_classifier, save
from plankwise.encoder.tokenizer import load_tokenizer

TRUNCATION, FITTED, BATCH, ALONE = Truncation(max_length=128), 300, 16, 12
PLAIN = {  # runtime, precision, portable
    "openvino fp32": ("openvino", "fp32", None),
    "openvino bf16": ("openvino", "bf16", None),
    "openvino int8-weights": ("openvino", "int8-weights", None),
    "openvino int4-weights": ("openvino", "int4-weights", None),
    "onnx fp32": ("onnx", "fp32", None),
    "onnx dynamic, 7 bits": ("onnx", "int8-dynamic", True),
    "onnx dynamic, 8 bits": ("onnx", "int8-dynamic", False),
    "onnx static, 7 bits": ("onnx", "int8", True),
    "onnx static, 8 bits": ("onnx", "int8", False),
    "NNCF, 7 bits": ("openvino", "int8", True),
    "NNCF, 8 bits": ("openvino", "int8", False),
}
OWN = {"method quantization, 7 bits": True, "method quantization, 8 bits": False}


def batches_of(tokenizer: Any, texts: list[str]) -> list[Inputs]:
    ordered = sorted(texts, key=len)
    groups = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
    return [
        dict(tokenizer(each, padding=True, truncation=True, max_length=128, return_tensors="np")) for each in groups
    ]


def fit_head(model: Any, tokenizer: Any, texts: list[str], labels: list[str]) -> None:
    """Fit the last linear layer to labels by logistic regression on its inputs, in place."""
    head = next(module for module in reversed(list(model.modules())) if isinstance(module, torch.nn.Linear))
    features: list[np.ndarray] = []
    with head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].numpy())):
        for batch in batches_of(tokenizer, texts):
            reference(model, batch)
    ordered = [label for _, label in sorted(zip(texts, labels, strict=True), key=lambda row: len(row[0]))]
    found = LogisticRegression(C=10.0, max_iter=2000).fit(np.concatenate(features), ordered)
    with torch.no_grad():
        for row, sign in enumerate((-0.5, 0.5)):
            head.weight[row] = torch.from_numpy(sign * found.coef_[0])
            head.bias[row] = sign * float(found.intercept_[0])


def prepared(source: Path, rows: list[list[str]], folder: Path, count: int) -> None:
    """Save the classifier and both of its quantized variants into `folder`."""
    tokenizer = load_tokenizer(str(source))
    kinds = sorted({row[1] for row in rows if len(row) > 1})
    model = load_classifier(str(source), tuple(kinds) if len(kinds) == 2 else ("one", "other"))
    if len(kinds) == 2:
        fit_head(model, tokenizer, [row[0] for row in rows[:FITTED]], [row[1] for row in rows[:FITTED]])
    save(model, tokenizer, folder / "fp32")
    for name, portable in OWN.items():
        texts = [row[0] for row in rows[:count]]
        save(calibrated(model, batches_of(tokenizer, texts), portable), tokenizer, folder / name)


def beside(predictor: Predictor, tokenizer: Any, texts: list[str]) -> float:
    """Compute the largest change of a probability of the shortest texts when long ones share their batch."""
    ordered = sorted(texts, key=len)
    groups = [[ordered[each], ordered[-1 - each], ordered[len(ordered) // 2]] for each in range(ALONE)]
    manifest = predictor.deployed.manifest
    batches = [{name: batches_of(tokenizer, each)[0][name] for name in manifest.inputs} for each in groups]
    return neighbour_change(predictor.deployed.runtime, batches, manifest, spread=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("source", type=Path, metavar="TEXTS")
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--calibrated", type=int, default=128)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="variants whose name has a part")
    options = parser.parse_args()
    rows = [line.split("\t")[:2] for line in options.source.read_text(encoding="utf-8-sig").splitlines() if line]
    texts, calibration = [row[0] for row in rows[-options.texts :]], [row[0] for row in rows[: options.calibrated]]
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        if not (work / "fp32").exists():
            prepared(options.model, rows, work, options.calibrated)
        variants = measure(work, texts, calibration, options.only)
    found = {"saturates": saturates(), "texts": len(texts), "variants": variants, "environment": environment()}
    print(json.dumps(found))


def measure(work: Path, texts: list[str], calibration: list[str], only: list[str]) -> dict[str, Any]:
    chosen: list[Text] = list(calibration)
    whole = {name: (work / "fp32", *each) for name, each in PLAIN.items()}
    whole |= {f"{name}, {to}": (work / name, to, "int8", None) for name in OWN for to in ("openvino", "onnx")}
    whole = {name: each for name, each in whole.items() if not only or any(part in name for part in only)}
    tokenizer, old, variants = load_tokenizer(str(work / "fp32")), None, dict[str, Any]()
    for name, (model, runtime, precision, portable) in [("torch", (work / "fp32", "", "", None)), *whole.items()]:
        place = work / f"artefact {name}" if runtime else model
        how: dict[str, Any] = {
            "truncation": TRUNCATION,
            "calibration": chosen,
            "texts": chosen[:8],
            "tolerance": 1.0,
            "portable": portable,
        }
        if not place.exists():
            export(model, place, to=runtime, precision=precision, **how)
        predictor = Predictor(place, max_length=128, threads=2)
        begun = time.perf_counter()
        found = predictor.answer.probabilities(predictor.logits(list(texts)))
        seconds = time.perf_counter() - begun
        old = found if old is None else old
        change = np.abs(found - old)
        variants[name] = {
            "mean_change": round(float(change.mean()), 5),
            "largest_change": round(float(change.max()), 4),
            "same_labels": round(float((found.argmax(axis=1) == old.argmax(axis=1)).mean()), 4),
            "beside": round(beside(predictor, tokenizer, texts), 6),
            "seconds": round(seconds, 1),
        }
        print(f"{name}: {variants[name]}", flush=True)
    return variants


if __name__ == "__main__":
    main()
