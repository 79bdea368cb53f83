"""The page without a browser: what it shows, what it records, and whom it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from plankwise.review.app import COOKIE, MAX_BODY, make_app
from plankwise.review.store import Answer, ReviewStore

TOKEN, PORT = "s3cret", 8731
HOST = f"127.0.0.1:{PORT}"
ORIGIN = {"Origin": f"http://{HOST}"}


def client_of(store: ReviewStore, *, token: str | None = TOKEN) -> TestClient:
    client = TestClient(make_app(store, TOKEN, PORT), base_url=f"http://{HOST}", follow_redirects=False)
    if token is not None:
        client.cookies.set(COOKIE, token)
    return client


@pytest.fixture
def client(store: ReviewStore) -> Iterator[TestClient]:
    with client_of(store) as made:
        yield made


def test_the_token_moves_from_the_address_into_a_cookie(store: ReviewStore) -> None:
    client = client_of(store, token=None)
    answer = client.get("/", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "grün"])
@pytest.mark.parametrize("path", ["/", "/by/Ada", "/by/Ada/1", "/static/review.js", "/nowhere"])
def test_without_the_token_nothing_is_shown(store: ReviewStore, token: str | None, path: str) -> None:
    client = client_of(store, token=None)
    headers = {} if token is None else {b"Cookie": f"{COOKIE}={token}".encode()}
    answer = client.get(path, headers=headers)
    assert answer.status_code == 403
    assert "plain words" not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8731", "127.0.0.1:80", "127.0.0.1", "[::1]:8731"])
def test_a_name_that_points_here_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", f"https://{HOST}", "http://127.0.0.1:80"])
def test_only_the_page_itself_changes_answers(client: TestClient, store: ReviewStore, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin}
    for path in ("/", "/by/Ada/1", "/by/Ada/undo"):
        assert client.post(path, data={"class": "1", "annotator": "Ada"}, headers=headers).status_code == 403
    assert store.answers() == []


def test_every_answer_forbids_what_comes_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/by/Ada/1", "/static/review.css", "/nowhere", "/by/Ada/done"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'; script-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    page = client.get("/by/Ada/1").text
    assert "http://" not in page
    assert "https://" not in page
    assert "style=" not in page
    assert "onclick" not in page


def test_labelling_goes_from_text_to_text_and_ends(client: TestClient, store: ReviewStore) -> None:
    assert client.post("/", data={"annotator": " Ada  L. "}, headers=ORIGIN).headers["location"] == "/by/Ada%20L."
    for number in range(1, 7):
        assert client.get("/by/Ada%20L.").headers["location"] == f"/by/Ada%20L./{number}"
        page = client.get(f"/by/Ada%20L./{number}").text
        assert f"text {number} of 6" in page
        assert f'value="{number - 1}"' in page
        given = {"class": "1", "note": "why"} if number % 2 else {"add": "1", "new": "own class", "note": ""}
        client.post(f"/by/Ada%20L./{number}", data=given, headers=ORIGIN)
    assert client.get("/by/Ada%20L.").headers["location"] == "/by/Ada%20L./done"
    assert "All 6 texts have an answer by Ada L." in client.get("/by/Ada%20L./done").text
    assert store.answers()[:2] == [Answer(1, "Ada L.", "irony", "why"), Answer(2, "Ada L.", "own class", "")]
    assert "6 of 6" in client.get("/").text


def test_the_page_does_not_tell_which_model_erred(client: TestClient) -> None:
    for number in range(1, 7):
        page = client.get(f"/by/Ada/{number}").text.lower()
        assert "baseline" not in page
        assert "compressed" not in page


def test_texts_are_shown_as_text(client: TestClient) -> None:
    page = client.get("/by/Ada/2").text
    assert "&lt;script&gt;document.title = &#39;broken&#39;&lt;/script&gt; &amp; &lt;b&gt;" in page
    client.post("/by/Ada/2", data={"add": "1", "new": "<i>class</i>", "note": "</textarea><b>"}, headers=ORIGIN)
    page = client.get("/by/Ada/2").text
    assert "<i>class" not in page
    assert "</textarea><b>" not in page
    assert "&lt;i&gt;class&lt;/i&gt;" in page
    client.post("/", data={"annotator": "<b>x"}, headers=ORIGIN)
    client.post("/by/%3Cb%3Ex/1", data={"class": "1"}, headers=ORIGIN)
    assert "<b>x" not in client.get("/").text


def test_undo_shows_the_text_again(client: TestClient, store: ReviewStore) -> None:
    client.post("/by/Ada/3", data={"class": "1"}, headers=ORIGIN)
    assert client.post("/by/Ada/undo", headers=ORIGIN).headers["location"] == "/by/Ada/3"
    assert store.answers() == []
    assert client.post("/by/Ada/undo", headers=ORIGIN).headers["location"] == "/by/Ada"


@pytest.mark.parametrize(
    ("path", "data", "status", "shown"),
    [
        ("/by/Ada/1", {}, 400, "choose an error class, or name a new one"),
        ("/by/Ada/1", {"class": "99"}, 400, "no error class 99"),
        ("/by/Ada/1", {"class": "1; DROP TABLE answer"}, 400, "choose an error class"),
        ("/by/Ada/1", {"class": "²"}, 400, "choose an error class"),
        ("/by/Ada/1", {"add": "1", "new": " "}, 400, "1 to 60 characters"),
        ("/by/Ada/99", {"class": "1"}, 404, "no such text: 99"),
        ("/", {"annotator": " "}, 400, "1 to 60 characters"),
        ("/", {"annotator": "a/b"}, 400, "no slash"),
        ("/by/Ada/1", {"class": "1", "note": "x" * MAX_BODY}, 413, "too long"),
    ],
)
def test_a_wrong_form_changes_nothing(
    client: TestClient, store: ReviewStore, path: str, data: dict[str, str], status: int, shown: str
) -> None:
    answer = client.post(path, data=data, headers=ORIGIN)
    assert answer.status_code == status
    assert shown in answer.text
    assert store.answers() == []


def test_files_beside_the_page_are_not_served(client: TestClient) -> None:
    for name in ("app.py", "../store.py", "..%2Fstore.py", "review.sqlite"):
        assert client.get(f"/static/{name}").status_code == 404
