"""Predicts with the model in this folder: one text per line in, JSON lines out.

It needs numpy, tokenizers and the model's runtime. Usage: python predict.py < texts.txt > predictions.jsonl
In Python: Model("FOLDER").predict(["a text", ("one text", "of a pair")])
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

# Instructions for products in 8 and 16 bits, by which the runtimes choose their kernels.
CLASS = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "bf16"}


class Model:
    """The model in a folder.

    Raises:
        RuntimeError: if this processor is of another class than the one that exported it, and gives other answers.
    """

    def __init__(self, folder: Any) -> None:
        self.about = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
        self.reduced = 0  # texts of which a part was left out
        self.tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self.logits = runtime(self.about["runtime"], str(Path(folder) / self.about["model"]), self.about["precision"])
        self.warning = self.check_processor(cpu_flags())

    def predict(self, texts: Any) -> Any:
        """Yield the probability of each label, or the score, text by text."""
        pool = getattr(np, (self.about["reading"]["windows"] or {}).get("pooling", "mean"))
        for text in texts:
            encoded = self.tokenizer.encode(text) if isinstance(text, str) else self.tokenizer.encode(*text)
            windows = [self.logits(self.inputs(encoded, at))[0] for at in self.positions(encoded)]
            shares = self.probabilities(pool(windows, axis=0))
            yield dict(zip(self.about["labels"], map(float, shares), strict=True))

    def probabilities(self, logits: Any) -> Any:
        """Turn logits into probabilities, both [..., labels]; of a model with one output into its score."""
        if self.about["kind"] == "regression":
            return logits
        if self.about["kind"] in ("multi_label", "sigmoid_score"):
            return np.exp(-np.logaddexp(0.0, -np.asarray(logits)))
        raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return raised / raised.sum(axis=-1, keepdims=True)

    def inputs(self, encoded: Any, at: list[int]) -> dict[str, Any]:
        """Make the model's inputs from some positions of an encoded text, each [1, tokens]."""
        ones = [1] * len(encoded.ids)
        values = {"input_ids": encoded.ids, "attention_mask": ones, "token_type_ids": encoded.type_ids}
        return {name: np.array([[values[name][each] for each in at]], dtype=np.int64) for name in self.about["inputs"]}

    def positions(self, encoded: Any) -> list[list[int]]:
        """Cut a text, or a pair, as in training: special tokens stay, the rest is truncated or split into windows."""
        length, windows = self.about["reading"]["max_length"], self.about["reading"]["windows"]
        if len(encoded.ids) <= length:
            return [list(range(len(encoded.ids)))]
        frame = [at for at, of in enumerate(encoded.sequence_ids) if of is None]
        one, two = ([at for at, of in enumerate(encoded.sequence_ids) if of == text] for text in (0, 1))
        room = length - len(frame)
        if windows:
            last = max(0, len(one) - room)
            starts = [*range(0, last, room - windows["stride"]), last]
            if len(starts) > windows["most"]:
                self.reduced += 1
                apart = (len(starts) - 1) / max(1, windows["most"] - 1)
                starts = [starts[round(number * apart)] for number in range(windows["most"])]
            return [sorted(frame + one[start : start + room]) for start in starts]
        self.reduced += 1
        short = min(len(one), len(two), room // 2)
        sizes = (short, room - short) if len(one) <= len(two) else (room - short, short)
        return [sorted(frame + self.cut(one, sizes[0]) + self.cut(two, sizes[1]))]

    def cut(self, text: list[int], size: int) -> list[int]:
        """Keep `size` positions of a text: its head, its tail or both."""
        head = {"head": size, "tail": 0, "head_tail": (size + 2) // 4}[self.about["reading"]["truncation"]]
        return text if len(text) <= size else text[:head] + text[len(text) - (size - head) :]

    def check_processor(self, flags: set[str]) -> str:
        """Compare stored answers if this processor is of another class than the export's; return what to say, or ""."""
        needs, before, here = self.about.get("needs"), self.about.get("cpu", {}).get("flags", []), CLASS & flags
        if needs and not set(needs) & flags:
            why = f"this processor has none of {', '.join(needs)}, which the model was exported for: its sums saturate"
        elif set(before) != here:
            names = [", ".join(sorted(each)) or "no instructions that are known" for each in (before, here)]
            why = f"the model was exported on a processor with {names[0]}, and this one has {names[1]}"
        else:
            return ""
        stored = [
            (name, self.about.get(key)) for name, key in (("the compared texts", "rows"), ("random input", "check"))
        ]
        found = [(name, *self.run_again(check)) for name, check in stored if check]
        parity = self.about.get("parity")
        if not found or not parity:
            return f"{why}; its answers cannot be checked: the artefact has no stored ones"
        for _, change, _ in found:
            if not change <= parity["tolerance"]:  # true of NaN, too
                raise RuntimeError(
                    f"{why}, and probabilities differ by {change:.3f} from those of the export; "
                    f"allowed: {parity['tolerance']}. Export it again{' with portable weights' if needs else ' here'}"
                )
        shown = [f"on {name} probabilities differ by at most {change:.4f}, {same}" for name, change, same in found]
        return f"{why}: {'; '.join(shown)}"

    def run_again(self, check: Any) -> tuple[float, str]:
        """Return the largest change of a probability of stored inputs, and how many have the same labels."""
        found = self.logits({name: np.array(rows, dtype=np.int64) for name, rows in check["inputs"].items()})
        logits = [np.asarray(each, dtype=np.float32) for each in (check["logits"], found)]
        if self.about["kind"] in ("regression", "sigmoid_score"):
            change = np.abs(logits[1] - logits[0]).max() / self.about["parity"]["spread"]
            return float(change), f"order of scores {(logits[0].argsort(0) == logits[1].argsort(0)).all()}"
        before, after = map(self.probabilities, logits)
        if self.about["kind"] == "multi_label":
            same = ((before > 0.5) == (after > 0.5)).all(axis=-1)
        else:
            same = before.argmax(axis=-1) == after.argmax(axis=-1)
        return float(np.abs(after - before).max()), f"same labels {same.sum()} of {len(same)}"


def cpu_flags() -> set[str]:
    """Return the processor's instructions as Linux names them; none where they cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    found = next((line for line in lines if line.startswith(("flags", "Features"))), "")  # x86, ARM
    return set(found.partition(":")[2].split())


def runtime(name: str, path: str, precision: str) -> Any:
    """Return a function from inputs, each [texts, tokens], to logits, [texts, labels]."""
    if name == "openvino":
        loaded: Any = sys.modules
        loaded.setdefault("openvino_telemetry", None)  # or else importing OpenVINO reports it to Google Analytics
        import openvino

        hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
        request = openvino.Core().compile_model(path, "CPU", hint).create_infer_request()
        return lambda inputs: request.infer(inputs)[0].copy()
    if name == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "0")  # fp32 stays fp32
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, inputs)[0]
    import torch

    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # or else loading would unpickle any object in the file
    module = torch.export.load(path).module()
    return lambda inputs: module(*map(torch.from_numpy, inputs.values())).detach().numpy()


if __name__ == "__main__":
    try:
        model = Model(Path(__file__).parent)
    except RuntimeError as error:
        sys.exit(f"predict.py: {error}")
    if model.warning:
        sys.stderr.write(f"predict.py: {model.warning}\n")
    for shares in model.predict(line.rstrip("\n") for line in sys.stdin):
        sys.stdout.write(json.dumps(shares, ensure_ascii=False) + "\n")
    if model.reduced:
        sys.stderr.write(f"{model.reduced} texts are longer than the model reads, and were cut or thinned\n")
