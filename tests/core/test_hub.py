from __future__ import annotations

import time
from pathlib import Path

import pytest
from huggingface_hub import constants

import tiny
from plankwise.core import hub
from plankwise.core.errors import DataError, ModelError
from plankwise.core.hub import reachable, where_to_read
from plankwise.data.tasks.tables import HubDataset
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.tokenizer import load_tokenizer


class NoNetwork:
    def __init__(self) -> None:
        self.asked = 0

    def head(self, url: str, timeout: float) -> None:
        self.asked += 1
        raise OSError("Name or service not known")


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> NoNetwork:
    gone = NoNetwork()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "get_session", lambda: gone)
    monkeypatch.setattr(hub, "_seen", None)
    return gone


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in the Hub's cache, by its layout."""
    folder = tmp_path / "models--owner--tiny"
    tiny.save_source(folder / "snapshots" / "abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return folder / "snapshots" / "abc"


@pytest.mark.parametrize("name", ["owner/model", "model", "models/mine", "Not A Name!"])
def test_an_absent_model_is_one_line_and_the_hub_is_asked_once(name: str, network: NoNetwork) -> None:
    for load in (load_trained, load_tokenizer):
        with pytest.raises(ModelError) as caught:
            load(name)
        assert str(caught.value) == (
            f"there is no folder {name}; if it is meant as a Hub id, it is not in the cache, and "
            f"{constants.ENDPOINT} cannot be reached"
        )
    assert network.asked == 1


@pytest.mark.parametrize("path", ["./nowhere", "/no/where", "a/b/c"])
def test_a_path_is_no_hub_id(path: str, network: NoNetwork) -> None:
    with pytest.raises(ModelError, match=r"no (model )?folder"):
        load_trained(path)
    with pytest.raises(DataError, match=rf"cannot load the dataset {path}\[train\]: there is no folder {path}$"):
        HubDataset(id=path).load()
    assert network.asked <= 1


def test_a_dataset_out_of_reach_is_one_line(network: NoNetwork) -> None:
    with pytest.raises(DataError, match=r"there is no folder no/data; if it is meant as a Hub id, it is not in"):
        HubDataset(id="no/data").load()
    assert not constants.HF_HUB_OFFLINE


def test_a_cached_model_is_read_without_the_hub(network: NoNetwork, cached: Path) -> None:
    assert where_to_read("owner/tiny") == str(cached)
    assert load_trained("owner/tiny").config.num_hidden_layers == 4
    assert len(load_tokenizer("owner/tiny")) == 32


def test_a_folder_needs_no_hub(network: NoNetwork, tmp_path: Path) -> None:
    assert where_to_read(str(tmp_path)) == str(tmp_path)
    assert network.asked == 0


def test_a_name_server_that_never_answers_is_not_waited_for(
    network: NoNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "SECONDS_TO_ANSWER", 0.05)
    monkeypatch.setattr(network, "head", lambda url, timeout: time.sleep(0.5))
    begun = time.monotonic()
    assert not reachable()
    assert time.monotonic() - begun < 0.4


def test_an_answer_is_an_answer(network: NoNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "head", lambda url, timeout: None)
    assert reachable()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not reachable()
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        where_to_read("no/model")
