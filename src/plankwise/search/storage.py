"""Optuna's storage and search space: how values are stored, and what may go wrong with a database."""

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
from plankwise.search.study import Range
from plankwise.search.study_plan import StudyPlan

logger = logging.getLogger(__name__)
SEED = "seed"


def check_storage(url: str) -> None:
    """Check that a storage is a URL and that its driver is installed, before anything is written.

    Raises:
        OutputError: with the command that installs the driver.
    """
    with reachable(url):
        try:
            with_driver(url).get_dialect().import_dbapi()
        except ModuleNotFoundError as error:
            require(f"the storage {_public(url)}", error.name or "its driver", error=OutputError)


def with_driver(url: str) -> sqlalchemy.URL:
    """Parse a URL, adding a driver to one of PostgreSQL that names none.

    The driver is the one of the extra, psycopg2, or psycopg where that alone is installed: SQLAlchemy's own choice
    depends on its version.
    """
    parsed = sqlalchemy.make_url(url)
    if parsed.drivername != "postgresql":
        return parsed
    newer = importlib.util.find_spec("psycopg2") is None and importlib.util.find_spec("psycopg") is not None
    return parsed.set(drivername="postgresql+psycopg" if newer else "postgresql+psycopg2")


@contextmanager
def reachable(url: str) -> Iterator[None]:
    """Turn an error of the storage into one line, without its password.

    Raises:
        OutputError: with the storage and the first cause.
    """
    try:
        public = _public(url)
    except sqlalchemy.exc.ArgumentError:
        raise OutputError("storage: not a URL such as sqlite:///FILE or postgresql://USER@HOST/NAME") from None
    try:
        yield
    except (ImportError, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause: BaseException = error  # SQLAlchemy and Optuna wrap the driver's error, whose first line says it best
        while cause.__cause__ is not None:
            cause = cause.__cause__
        first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise OutputError(f"the storage {public} cannot be used: {first}") from None


def _public(url: str) -> str:
    return sqlalchemy.make_url(url).render_as_string(hide_password=True)


def open_storage(url: str, **options: Any) -> optuna.storages.RDBStorage:
    """Open a storage and create its tables if needed; several workers may do so at the same time.

    Args:
        url: of SQLAlchemy.
        options: of Optuna's storage, such as its heartbeat.
    """
    # SQLite locks the whole file for each write: workers wait for each other. Servers close connections that are idle,
    # as they are while a trial trains: each is tested before it is used.
    arguments = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    place = with_driver(url).render_as_string(hide_password=False)
    for pause_s in (0.5, 1.0, 2.0, 4.0):  # another worker is creating the tables; each time it gets further
        try:
            return optuna.storages.RDBStorage(place, engine_kwargs=arguments, **options)
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            time.sleep(pause_s)
    return optuna.storages.RDBStorage(place, engine_kwargs=arguments, **options)


def distributions(plan: StudyPlan) -> dict[str, BaseDistribution]:
    """Describe the space to Optuna. A list is categorical: its values have no order or distance."""
    found: dict[str, BaseDistribution] = {SEED: CategoricalDistribution(plan.study.seeds)}
    for key in plan.keys:
        parts = [space[key] for space in plan.study.space]
        if isinstance(parts[0], Range):
            found[key] = _range(parts[0])
        else:
            found[key] = CategoricalDistribution(list(dict.fromkeys(encoded(each) for part in parts for each in part)))
    return found


def _range(values: Range) -> BaseDistribution:
    if isinstance(values.low, int) and isinstance(values.high, int):
        return IntDistribution(values.low, values.high, log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def encoded(value: Any) -> Any:
    """Return a value in a form that Optuna stores: lists and mappings as JSON."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)


def decoded(plan: StudyPlan, key: str, value: Any) -> Any:
    """Return a value that Optuna stored as that of the recipe."""
    lists = [grid[key] for grid in plan.study.space if isinstance(grid[key], list)]
    return next((each for values in lists for each in values if encoded(each) == value), value)


@contextmanager
def unless_given_up(number: int) -> Iterator[None]:
    """Drop the result of a trial that other workers gave up, as happens to a machine that was suspended."""
    try:
        yield
    except optuna.exceptions.UpdateFinishedTrialError:
        logger.warning("another worker gave up trial %d in the meantime; the result of this worker is dropped", number)


@contextmanager
def unless_unreachable() -> Iterator[None]:
    """Skip a heartbeat rather than fail because of one."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        logger.warning("the storage cannot be reached at the moment: %s", str(error).splitlines()[0])
