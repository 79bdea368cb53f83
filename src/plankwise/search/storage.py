"""Optuna's storage and search space: how values are kept there, and what may go wrong with it."""

from __future__ import annotations

import importlib.util
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from plankwise.core.errors import OutputError
from plankwise.core.packages import require
from plankwise.search.settings import Plan
from plankwise.search.study import Range

logger = logging.getLogger(__name__)
SEED = "seed"


def check_storage(url: str) -> None:
    """Refuse a storage that is no URL, or whose driver is not installed, before anything is written.

    Raises:
        OutputError: with the command that installs the driver.
    """
    with reachable(url):
        shown = sqlalchemy.make_url(url).render_as_string(hide_password=True)
        try:
            with_driver(url).get_dialect().import_dbapi()
        except ModuleNotFoundError as error:
            require(f"the storage {shown}", error.name or "its driver", error=OutputError)


def with_driver(url: str) -> sqlalchemy.URL:
    """Read a URL; one of PostgreSQL that names no driver gets the extra's, or psycopg where that alone is installed.

    SQLAlchemy's own choice depends on its version.
    """
    read = sqlalchemy.make_url(url)
    if read.drivername != "postgresql":
        return read
    newer = importlib.util.find_spec("psycopg2") is None and importlib.util.find_spec("psycopg") is not None
    return read.set(drivername="postgresql+psycopg" if newer else "postgresql+psycopg2")


@contextmanager
def reachable(url: str) -> Iterator[None]:
    """Turn what a storage may fail with into one line, without its password."""
    try:
        shown_url = sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        raise OutputError("storage: not a URL such as sqlite:///FILE or postgresql://USER@HOST/NAME") from None
    try:
        yield
    except (ImportError, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise OutputError(f"the storage {shown_url} cannot be used: {first}") from None


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open a storage, making its tables if need be, also where another worker is making them just now."""
    arguments = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    place = with_driver(url).render_as_string(hide_password=False)
    for patience in (0.5, 1.0, 2.0, 4.0):
        try:
            return optuna.storages.RDBStorage(place, engine_kwargs=arguments)
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            time.sleep(patience)
    return optuna.storages.RDBStorage(place, engine_kwargs=arguments)


def distributions(plan: Plan) -> dict[str, BaseDistribution]:
    """Describe the space to Optuna. A list is categorical: no order or distance is read into its values."""
    found: dict[str, BaseDistribution] = {SEED: CategoricalDistribution(plan.study.seeds)}
    for key in plan.keys:
        parts = [grid[key] for grid in plan.study.space]
        found[key] = _range(parts[0]) if isinstance(parts[0], Range) else CategoricalDistribution(_choices(plan, key))
    return found


def _range(values: Range) -> BaseDistribution:
    if isinstance(values.low, int) and isinstance(values.high, int):
        return IntDistribution(values.low, values.high, log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _choices(plan: Plan, key: str) -> list[Any]:
    return list(dict.fromkeys(encoded(value) for grid in plan.study.space for value in grid[key]))


def encoded(value: Any) -> Any:
    """Write a value as Optuna takes it: lists and mappings as JSON."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)


def decoded(plan: Plan, key: str, value: Any) -> Any:
    """Read a value as Optuna keeps it back into that of the recipe."""
    lists = [grid[key] for grid in plan.study.space if isinstance(grid[key], list)]
    return next((each for values in lists for each in values if encoded(each) == value), value)


@contextmanager
def unless_given_up(number: int) -> Iterator[None]:
    """Let go of a trial that others took for dead, as a machine that slept may find; they run it again."""
    try:
        yield
    except optuna.exceptions.UpdateFinishedTrialError:
        logger.warning("trial %d was given up by another worker meanwhile; what it gave here is dropped", number)


@contextmanager
def unless_out_of_reach() -> Iterator[None]:
    """Miss a sign of life rather than fall over one."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        logger.warning("the storage cannot be reached just now: %s", str(error).splitlines()[0])
