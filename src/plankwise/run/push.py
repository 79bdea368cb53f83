"""Uploading a model or an artefact to a repository of the Hugging Face Hub, private unless it is asked otherwise."""

from __future__ import annotations

import logging
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from plankwise.core.errors import DataError, ModelError, OutputError
from plankwise.core.records import FILE_NAME, read_record
from plankwise.deploy.manifest import is_artefact
from plankwise.report.model_card import CREDENTIALED, FILE, known_card

logger = logging.getLogger(__name__)
NEVER = ["*.partial", ".*", "stage.json", "curves/*"]  # what a stage of a run holds beside its model


def push(
    folder: Path, repository: str, *, public: bool = False, token: str | None = None, endpoint: str | None = None
) -> str:
    """Upload a folder with its card.

    Args:
        folder: of a model or an artefact.
        repository: `OWNER/NAME`; made if it is missing.
        public: whether a new repository is public.
        token: of the Hub; by default the one that is logged in.
        endpoint: address of the Hub.

    Returns:
        The address of the repository.

    Raises:
        ModelError: if the folder holds no model.
        DataError: if the model was trained on credentialed text, or the name is not one of the Hub.
        OutputError: if the Hub refuses, or cannot be reached.
    """
    if not (folder / "config.json").is_file() and not is_artefact(folder):
        raise ModelError(f"{folder} holds no model; allowed: RUN/model, or the folder of an artefact")
    if is_credentialed(folder):
        raise DataError(f"{folder} was trained on credentialed text, which it may reveal: it is not uploaded")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise DataError(f"{repository}: {str(error).partition('.')[0]}; allowed: OWNER/NAME") from None
    if not (folder / FILE).is_file():
        logger.warning("%s has no card (%s): the repository will not say what was kept", folder, FILE)
    api = HfApi(endpoint=endpoint, token=token)
    try:
        made = api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, ignore_patterns=NEVER, commit_message="Compressed with plankwise"
        )
    except Exception as error:  # its own, and those of whichever HTTP client the library has
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OutputError(f"cannot upload to {repository}: {first}") from None
    return str(made)


def is_credentialed(folder: Path) -> bool:
    """Return whether a model's card or the run that it belongs to says that its texts are credentialed."""
    if known_card(str(folder)).get("access") == CREDENTIALED:
        return True
    runs = [each for each in (folder, *folder.resolve().parents[:3]) if (each / FILE_NAME).is_file()]
    return any(read_record(run).task.get("access") == CREDENTIALED for run in runs)
