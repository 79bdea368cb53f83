"""Initialization of a shallower encoder: which layers of the deeper one each new layer is copied from."""

from __future__ import annotations

from typing import Literal

from plankwise.core.errors import MethodError
from plankwise.encoder.surgery import Source

Initialization = Literal["bottom", "top", "first_of_module", "last_of_module", "alternate", "mean_of_module", "random"]
Modules = list[list[int]]


def contiguous_modules(depth: int, modules: int | list[list[int]]) -> Modules:
    """Divide layers 0 … depth − 1 into contiguous modules.

    Args:
        depth: number of layers.
        modules: how many, of nearly equal size with the larger ones first; or the layers of each module.

    Example:
        >>> contiguous_modules(5, 2)
        [[0, 1, 2], [3, 4]]

    Raises:
        MethodError: if there are more modules than layers, or given modules do not cover all layers in order.
    """
    if isinstance(modules, list):
        if [layer for module in modules for layer in module] != list(range(depth)) or not all(modules):
            raise MethodError(f"modules {modules} do not cover the layers 0 to {depth - 1} once each, in order")
        return [list(module) for module in modules]
    if not 1 <= modules <= depth:
        raise MethodError(f"{modules} modules do not fit a model of {depth} layers; allowed: 1 to {depth}")
    small, larger = divmod(depth, modules)
    sizes = [small + 1] * larger + [small] * (modules - larger)
    starts = [sum(sizes[:index]) for index in range(modules)]
    return [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]


def sources_of(modules: Modules, initialization: Initialization | list[int]) -> list[Source]:
    """Return for each module the layers that its successor is copied or averaged from; none for random weights.

    `bottom` is the choice of the Theseus paper: successor i starts as layer i, whatever layers it replaces. `alternate`
    spreads the layers evenly from the first to the last. A list names one layer for each module.

    Raises:
        MethodError: if a list names too few, too many or unknown layers.
    """
    depth, count = modules[-1][-1] + 1, len(modules)
    if isinstance(initialization, list):
        if len(initialization) != count or not all(0 <= layer < depth for layer in initialization):
            raise MethodError(f"initialization {initialization}: name {count} layers between 0 and {depth - 1}")
        return [(layer,) for layer in initialization]
    spread = [round(index * (depth - 1) / max(1, count - 1)) for index in range(count)]
    choices: dict[str, list[Source]] = {
        "bottom": [(index,) for index in range(count)],
        "top": [(depth - count + index,) for index in range(count)],
        "first_of_module": [(module[0],) for module in modules],
        "last_of_module": [(module[-1],) for module in modules],
        "alternate": [(layer,) for layer in spread],
        "mean_of_module": [tuple(module) for module in modules],
        "random": [() for _ in modules],
    }
    return choices[initialization]


def position_in(module: list[int], wanted: str, types: list[str]) -> int:
    """Return the layer of a module that its successor takes the place of.

    It is the first one of the attention type that the successor wants: a copy of a local layer must not be called with
    the mask and the rotary frequencies of a global one. If there is none, it is the module's first layer.
    """
    return next((index for index in module if types[index] == wanted), module[0])
