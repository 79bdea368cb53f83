"""What a model costs, counted on the model itself."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel


def count_parameters(model: PreTrainedModel) -> int:
    """Count parameters; tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def weights_size_bytes(folder: Path) -> int:
    """Add up the bytes of the weight files in a saved model's folder."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
