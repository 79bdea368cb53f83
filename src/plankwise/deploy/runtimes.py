"""One small interface to torch, ONNX Runtime and OpenVINO: padded token ids in, logits out.

Latency mode gives each request all threads. Throughput mode runs several requests at once, on one thread each. On two
cores, OpenVINO comes closer to their peak with two requests at once than with one request on both.
"""

from __future__ import annotations

import os
import pickle  # only for its error: nothing here unpickles
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from plankwise.core.errors import ModelError
from plankwise.data.batching.inputs import Inputs

Logits = npt.NDArray[np.float32]
Mode = Literal["latency", "throughput"]
MODES: tuple[Mode, ...] = ("latency", "throughput")
FLOAT_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CONSTANTS = "data/constants/"
_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
ONNX_BF16 = "mlas.enable_gemm_fastmath_arm64_bfloat16"  # on ARM, fp32 products in bf16; pinned to off, its default
# Without a hint OpenVINO computes fp32 models in bf16 where the processor can.
OPENVINO_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class Runtime(Protocol):
    """Runs one model; safe to call from `streams` threads at once.

    Attributes:
        name: of the runtime and its precision, for tables.
        streams: number of concurrent calls it is set up for.
        threads: cores used by all calls together.
    """

    name: str
    streams: int
    threads: int

    def __call__(self, inputs: Inputs) -> Logits:
        """Compute logits [texts, labels] of inputs, each [texts, tokens]."""
        ...


class Torch:
    """A torch model, eager or compiled, on the device of its parameters."""

    def __init__(
        self, model: PreTrainedModel, precision: str = "fp32", threads: int | None = None, **compiling: Any
    ) -> None:
        """Cast the weights of a model in place.

        Args:
            model: a classifier.
            precision: fp32, bf16 or fp16.
            threads: of torch; if given, set for the whole process.
            compiling: options of `torch.compile`, which is called if there are any.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        self.name, self.streams, self.threads = f"torch {precision}", 1, torch.get_num_threads()
        self._device = model.device
        cast = model.to(FLOAT_TYPES[precision]).eval()
        self._model: Callable[..., Any] = torch.compile(cast, **compiling) if compiling else cast

    @torch.inference_mode()
    def __call__(self, inputs: Inputs) -> Logits:
        """Compute logits."""
        placed = {name: torch.from_numpy(np.asarray(value)).to(self._device) for name, value in inputs.items()}
        logits: Logits = self._model(**placed).logits.float().cpu().numpy()
        return logits


class TorchProgram:
    """A program saved by `torch.export`, on the CPU."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self._program = _safe_program(path).module()
        except ModelError:
            raise
        except pickle.UnpicklingError:
            raise ModelError(f"{path} holds a pickle that torch's weights-only reader refuses") from None
        except Exception as error:  # errors of zip, pickle and the schema have no common base
            raise ModelError(f"torch cannot load {path}: {str(error).splitlines()[0]}") from None
        self.name, self.streams, self.threads = "torch", 1, torch.get_num_threads()

    @torch.inference_mode()
    def __call__(self, inputs: Inputs) -> Logits:
        """Compute logits."""
        logits: Logits = self._program(*(torch.from_numpy(np.asarray(each)) for each in inputs.values())).numpy()
        return logits


def _safe_program(path: Path) -> torch.export.ExportedProgram:
    """Load a program from a file that is not trusted: by itself `torch.export.load` unpickles any object.

    Raises:
        ModelError: if the file holds objects other than tensors.
    """
    records: list[str] = torch._C.PyTorchFileReader(str(path)).get_all_records()
    constants = [name.rpartition(_CONSTANTS)[2] for name in records if _CONSTANTS in name]
    refused = [name for name in constants if not name.startswith("tensor_") and not name.endswith("_config.json")]
    if refused:
        raise ModelError(f"{path} holds {refused[0][:60]}, an object that would be unpickled; allowed: only tensors")
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"  # each inner `torch.load` obeys it, whatever its argument says
    try:
        return torch.export.load(str(path))
    finally:
        if before is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = before


class OnnxRuntime:
    """An ONNX model on the CPU."""

    def __init__(self, path: Path, threads: int, mode: Mode = "throughput") -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1 if mode == "throughput" else threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry(ONNX_BF16, "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library raises several kinds, which have no narrower base
            raise ModelError(f"ONNX Runtime cannot load {path}: {str(error).splitlines()[0]}") from None
        self.name, self.streams, self.threads = "onnxruntime", threads if mode == "throughput" else 1, threads

    def __call__(self, inputs: Inputs) -> Logits:
        """Compute logits."""
        logits: Logits = self._session.run(None, dict(inputs))[0]
        return logits


class OpenVino:
    """An OpenVINO model on the CPU; each concurrent call has its own inference request."""

    def __init__(self, path: Path, threads: int, mode: Mode = "throughput", precision: str = "fp32") -> None:
        import openvino

        streams = threads if mode == "throughput" else 1
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            "PERFORMANCE_HINT": mode.upper(),
            "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision],
        }
        try:
            self._compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot load {path}: {str(error).splitlines()[0]}") from None
        self.name, self.streams, self.threads = "openvino", streams, threads
        self._free: list[Any] = []  # idle requests: creating one takes longer than running a short text

    def __call__(self, inputs: Inputs) -> Logits:
        """Compute logits."""
        try:
            request = self._free.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        logits: Logits = np.array(request.infer(dict(inputs))[0])  # a copy: the next call overwrites its buffer
        self._free.append(request)
        return logits
