"""Predicts with the model in this folder: texts in, one a line; JSON lines out. Needs numpy, tokenizers, the runtime.

Usage: python predict.py < texts.txt > predictions.jsonl
In Python: Model("FOLDER").predict(["a text", ("one text", "of a pair")])
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer


class Model:
    """The model of a folder."""

    def __init__(self, folder: Any) -> None:
        self.about = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
        self.reduced = 0  # texts of which something was left out
        self.tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self.logits = runtime(self.about["runtime"], str(Path(folder) / self.about["model"]), self.about["precision"])

    def predict(self, texts: Any) -> Any:
        """Give a probability for each label, text by text."""
        pool = getattr(np, (self.about["reading"]["windows"] or {}).get("pooling", "mean"))
        for text in texts:
            encoded = self.tokenizer.encode(text) if isinstance(text, str) else self.tokenizer.encode(*text)
            logits = pool([self.logits(self.inputs(encoded, at)) for at in self.positions(encoded)], axis=0)
            raised = np.exp(logits - logits.max())
            shares = raised / raised.sum() if self.about["kind"] == "single_label" else 1 / (1 + np.exp(-logits))
            yield dict(zip(self.about["labels"], map(float, shares), strict=True))

    def inputs(self, encoded: Any, at: list[int]) -> dict[str, Any]:
        """Make the model's inputs of some positions of an encoded text, each [1, tokens]."""
        ones = [1] * len(encoded.ids)
        values = {"input_ids": encoded.ids, "attention_mask": ones, "token_type_ids": encoded.type_ids}
        return {name: np.array([[values[name][each] for each in at]], dtype=np.int64) for name in self.about["inputs"]}

    def positions(self, encoded: Any) -> list[list[int]]:
        """Cut a text, or a pair, as in training: special tokens stay, and of the rest what the reading says."""
        length, windows = self.about["reading"]["max_length"], self.about["reading"]["windows"]
        if len(encoded.ids) <= length:
            return [list(range(len(encoded.ids)))]
        frame = [at for at, of in enumerate(encoded.sequence_ids) if of is None]
        one, two = ([at for at, of in enumerate(encoded.sequence_ids) if of == text] for text in (0, 1))
        room = length - len(frame)
        if windows:
            last = max(0, len(one) - room)
            starts = [*range(0, last, room - windows["stride"]), last]
            if len(starts) > windows["max_windows"]:
                self.reduced += 1
                apart = (len(starts) - 1) / max(1, windows["max_windows"] - 1)
                starts = [starts[round(number * apart)] for number in range(windows["max_windows"])]
            return [sorted(frame + one[start : start + room]) for start in starts]
        self.reduced += 1
        short = min(len(one), len(two), room // 2)
        sizes = (short, room - short) if len(one) <= len(two) else (room - short, short)
        return [sorted(frame + self.cut(one, sizes[0]) + self.cut(two, sizes[1]))]

    def cut(self, text: list[int], size: int) -> list[int]:
        """Keep `size` positions of a text: its head, its tail or both."""
        head = {"head": size, "tail": 0, "head_tail": (size + 2) // 4}[self.about["reading"]["truncation"]]
        return text if len(text) <= size else text[:head] + text[len(text) - (size - head) :]


def runtime(name: str, path: str, precision: str) -> Any:
    """Give a function from one text's inputs to its logits, [labels]."""
    if name == "openvino":
        import openvino

        hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
        request = openvino.Core().compile_model(path, "CPU", hint).create_infer_request()
        return lambda inputs: request.infer(inputs)[0][0].copy()
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, inputs)[0][0]
    import torch

    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # or else loading would unpickle whatever the file brings
    module = torch.export.load(path).module()
    return lambda inputs: module(*map(torch.from_numpy, inputs.values())).detach().numpy()[0]


if __name__ == "__main__":
    model = Model(Path(__file__).parent)
    for shares in model.predict(line.rstrip("\n") for line in sys.stdin):
        sys.stdout.write(json.dumps(shares, ensure_ascii=False) + "\n")
    if model.reduced:
        sys.stderr.write(f"{model.reduced} texts are longer than the model reads, and were cut or thinned\n")
