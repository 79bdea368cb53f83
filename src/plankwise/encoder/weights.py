"""Reading weights into models: nothing that is missing, misfits or has no place passes in silence."""

from __future__ import annotations

import logging
import pickle  # only for its error; nothing here unpickles
import warnings
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from plankwise.core.errors import ModelError
from plankwise.core.hub import where_to_read
from plankwise.core.progress import quiet_loading
from plankwise.encoder.anatomy import anatomy_of
from plankwise.encoder.configuration import depth_key
from plankwise.encoder.shapes import is_plain, new_model
from plankwise.encoder.unsupported import check_stored_types

logger = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
_COUNTED = ("position_ids", "token_type_ids", "inv_freq")  # buffers that older versions of Transformers saved
_UNSAFE = (
    "a pickle that torch's weights-only reader refuses: it is damaged, or runs code when it is loaded; "
    "allowed: model.safetensors, or a .bin file of tensors alone"
)


@quiet_loading()
def load_weights(
    factory: Any, source: str, config: PreTrainedConfig, head_is_new: bool = True, **options: Any
) -> tuple[PreTrainedModel, list[str]]:
    """Load a model; also return the names of parameters that the source lacks in this size, which are random now."""
    place = where_to_read(source)
    try:
        if is_plain(config):
            check_stored_types(place)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected pickle protocol")  # it is loaded, or refused below
                model, report = factory.from_pretrained(
                    place, config=config, dtype=torch.float32, output_loading_info=True, **options
                )
            lost = [*report["missing_keys"], *(each[0] for each in report["mismatched_keys"])]
            unused = list(report["unexpected_keys"])
        else:
            # An Auto class maps the configuration to a class; `load` passes the class itself.
            kind = factory._model_mapping[type(config)] if hasattr(factory, "_model_mapping") else factory
            model, lost, unused = _load_shaped(kind, place, config)
    except ModelError:
        raise
    except pickle.UnpicklingError:
        raise ModelError(f"the weights of {source} are {_UNSAFE}") from None
    except Exception as error:  # the libraries raise nearly every kind for a damaged file
        raise ModelError(f"cannot load the weights of {source}: {first_line(error)}") from None
    assert isinstance(model, PreTrainedModel)
    prefix = model.base_model_prefix + "."
    # A pooler belongs to the head: masked LMs are saved without one, and BERT's classifier needs it.
    needed = [name for name in lost if not head_is_new or (name.startswith(prefix) and ".pooler." not in name)]
    if needed:
        needed.sort()
        raise ModelError(f"the weights of {source} lack or misfit {needed[0]} and {len(needed) - 1} more")
    _check_unused(model, unused, source)
    return model, lost


def _check_unused(model: PreTrainedModel, unused: list[str], source: str) -> None:
    """Refuse weights of layers that the model does not have; warn of other encoder weights that are not used."""
    prefix, layers = model.base_model_prefix + ".", anatomy_of(model.config).layers + "."
    parts = {str(name) for name, _ in model.base_model.named_children()} - {"pooler"}
    inside = sorted(name.removeprefix(prefix) for name in unused)
    inside = [each for each in inside if each.partition(".")[0] in parts and not each.endswith(_COUNTED)]
    over = [each for each in inside if each.startswith(layers)]
    if over:
        raise ModelError(
            f"the weights of {source} hold {over[0]} and {len(over) - 1} more that its configuration has no place for, "
            f"with {depth_key(model.config)} {model.config.num_hidden_layers}; allowed: weights that all have a place"
        )
    if inside:
        logger.warning("%s: %s and %d more weights of its encoder are not used", source, inside[0], len(inside) - 1)


def _load_shaped(
    kind: type[PreTrainedModel], source: str, config: PreTrainedConfig
) -> tuple[PreTrainedModel, list[str], list[str]]:
    """Rebuild a model with layers of individual sizes; also return the names of missing and of unused weights.

    Transformers' own loader would build full-sized layers, so the file is read here.
    """
    model = new_model(kind, config).float()
    own = model.state_dict()
    stored = load_file(str(cached_file(source, WEIGHTS)))
    prefix = model.base_model_prefix + "."
    if kind is not type(model.base_model) and not any(name.startswith(prefix) for name in stored):
        stored = {prefix + name: value for name, value in stored.items()}  # an encoder that was saved without a head
    fitting = {name: value for name, value in stored.items() if name in own and _fits(value, own[name])}
    model.load_state_dict(fitting, strict=False)
    # Of tied parameters only one is stored; the other shares its memory. Empty tensors all have the address 0.
    loaded = {own[name].data_ptr() for name in fitting if own[name].numel()}
    lost = [name for name in own if name not in fitting and own[name].data_ptr() not in loaded]
    return model.eval(), lost, [name for name in stored if name not in own]


def _fits(stored: Tensor, own: Tensor) -> bool:
    """Return whether a stored tensor fits: same shape, and both are floats or both integers (steps of int8)."""
    return stored.shape == own.shape and stored.is_floating_point() == own.is_floating_point()


def first_line(error: BaseException) -> str:
    """Return the message of a library's error as one line of at most 200 characters."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines[0] += f" {lines[1]}"
    return lines[0][:200] if lines else type(error).__name__
