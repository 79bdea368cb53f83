"""Uploading to a fake of the Hub's HTTP interface: what is made and sent, and what is refused before anything is."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

import tiny
from plankwise.core.errors import DataError, ModelError, OutputError
from plankwise.run.push import push

CARD = "---\nlicense: mit\n---\n# tiny\n"


class FakeHub(ThreadingHTTPServer):
    """Takes repositories and commits, and remembers them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.status = 200

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        self._send({"id": "ada/tiny", "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.status != 200:
            self._send({"error": "You have no right to do that"}, self.server.status)
        elif self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self._send({"url": f"{self.server.address}/ada/tiny", "id": "ada/tiny", "name": "ada/tiny"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]
            self._send({"files": answer})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"{self.server.address}/ada/tiny/commit/{'0' * 40}"
            self._send({"commitUrl": url, "commitOid": "0" * 40, "success": True})
        else:
            self._send({"valid": True})

    def _send(self, document: Any, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # this Hub is on the same machine
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tiny.save_source(tmp_path / "model")
    (folder / "README.md").write_text(CARD)
    (folder / "stage.json").write_text("{}")
    return folder


def test_a_folder_becomes_a_private_repository_with_its_card(hub: FakeHub, model: Path) -> None:
    assert push(model, "ada/tiny", token="hf_x", endpoint=hub.address).endswith("/ada/tiny")
    (made,) = hub.made
    assert made["name"] == "tiny"
    assert made["organization"] == "ada"
    assert made.get("private") is True or made.get("visibility") == "private"
    assert hub.files["README.md"].decode() == CARD
    assert hub.files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert "stage.json" not in hub.files
    assert hub.tokens == {"Bearer hf_x"}


def test_a_public_repository_has_to_be_asked_for(hub: FakeHub, model: Path) -> None:
    push(model, "ada/tiny", public=True, token="hf_x", endpoint=hub.address)
    assert hub.made[0].get("private") is not True
    assert hub.made[0].get("visibility") != "private"


def test_what_the_hub_refuses_is_one_line(hub: FakeHub, model: Path) -> None:
    hub.status = 403
    with pytest.raises(OutputError, match="cannot upload to ada/tiny: ") as error:
        push(model, "ada/tiny", token="hf_x", endpoint=hub.address)
    assert "\n" not in str(error.value)
    with pytest.raises(OutputError, match="cannot upload to ada/tiny: "):
        push(model, "ada/tiny", token="hf_x", endpoint="http://127.0.0.1:9")


def test_credentialed_models_are_never_uploaded(hub: FakeHub, model: Path) -> None:
    (model / "README.md").write_text("---\naccess: credentialed\n---\n# tiny\n")
    with pytest.raises(DataError, match="was trained on credentialed text, which it may reveal"):
        push(model, "ada/tiny", token="hf_x", endpoint=hub.address)
    (model / "README.md").unlink()
    record = {
        "name": "r",
        "task": {"access": "credentialed"},
        "environment": {},
        "data_hashes": {},
        "seed": 0,
        "recipe": {},
    }
    (model.parent / "record.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="credentialed"):
        push(model, "ada/tiny", token="hf_x", endpoint=hub.address)
    assert hub.made == []
    assert hub.tokens == set()


def test_what_is_no_model_or_no_name_is_refused(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model; allowed: RUN/model"):
        push(tmp_path / "nowhere", "ada/tiny", endpoint=hub.address)
    for name in ("a/b/c", "ada/..", "", "ada/ti ny"):
        with pytest.raises(DataError, match="allowed: OWNER/NAME"):
            push(model, name, endpoint=hub.address)
    assert hub.made == []


def test_a_folder_without_a_card_is_said(hub: FakeHub, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model / "README.md").unlink()
    push(model, "ada/tiny", token="hf_x", endpoint=hub.address)
    assert "has no card (README.md)" in caplog.text


def test_the_verb(
    hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_y")
    assert tiny.call(monkeypatch, "push", model, "ada/tiny", "--endpoint", hub.address) == 0
    assert capsys.readouterr().out.strip().endswith("/ada/tiny")
    assert tiny.call(monkeypatch, "push", model.parent, "ada/tiny", "--endpoint", hub.address) == 2
    assert "holds no model" in capsys.readouterr().err
