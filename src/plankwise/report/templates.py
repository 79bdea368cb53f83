"""The one Jinja set-up: every page is rendered here, self-contained and with all values escaped."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jinja2

from plankwise.core.intervals import format_interval
from plankwise.core.records import format_optional
from plankwise.evaluation.effects import shown_estimate


def render(template: str, **values: Any) -> str:
    """Render a template of this package, such as `run.html.j2`.

    Raises:
        jinja2.UndefinedError: if the template uses a value that is not given; a page never has silent gaps.
    """
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("plankwise.report", ""),
        autoescape=True,  # by default Jinja escapes nothing: names of labels and files could hold markup
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        interval=format_optional,
        shown_interval=_format_stored,
        estimate=shown_estimate,
        size=format_size,
        number=_format_number,
    )
    return environment


def format_size(size_bytes: int) -> str:
    """Format a size in MB of 10⁶ bytes."""
    return f"{size_bytes / 1e6:.1f} MB"


def _format_stored(interval: Mapping[str, float]) -> str:
    """Format an interval as a JSON document holds it."""
    return format_interval(interval["value"], interval["low"], interval["high"])


def _format_number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
