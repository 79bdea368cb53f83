"""The page on which people label errors: one text at a time, by keyboard, blind to which model erred.

A local server for a browser on the same machine. Every request needs a random token, which the first address hands over
as a cookie; requests that change something must come from the page itself; nothing from elsewhere is loaded.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from plankwise.core.errors import DataError
from plankwise.report.templates import render
from plankwise.review.store import MAX_NAME, MAX_NOTE, ReviewStore

COOKIE = "plankwise-review"
KEYS = "123456789abcdefghijklopqrstvwxyz"  # without m, n and u, which the page uses itself
MAX_BODY = 64 * 1024
SEE_OTHER = 303
HERE = Path(__file__).parent
STATIC = {"review.css": "text/css", "review.js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers send no Origin along with a form
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
Next = Callable[[Request], Awaitable[Response]]


class Guard(BaseHTTPMiddleware):
    """Lets through what comes from the page of this server, in the browser that got the token."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        super().__init__(app)
        self._token, self._hosts = token, hosts

    async def dispatch(self, request: Request, call_next: Next) -> Response:
        """Answer a request, or refuse it."""
        fault = self._fault(request)
        response: Response = (
            PlainTextResponse(fault[1], fault[0]) if fault else await self._answered(request, call_next)
        )
        response.headers.update(HEADERS)
        return response

    def _fault(self, request: Request) -> tuple[int, str] | None:
        """Return the status and the reason for which a request is refused."""
        if request.headers.get("host") not in self._hosts:  # a name that someone pointed at this machine
            return 403, "unknown host"
        given = request.cookies.get(COOKIE) or request.query_params.get("token") or ""
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return 403, "open the address that plankwise review serve printed"
        if request.method == "GET":
            return None
        origin = request.headers.get("origin")
        if origin is None or origin not in {f"http://{host}" for host in self._hosts}:
            return 403, "only the page itself may change answers"
        length = request.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_BODY:
            return 413, "too long"
        return None

    async def _answered(self, request: Request, call_next: Next) -> Response:
        if "token" in request.query_params:  # moves into a cookie, out of the address and the browser's history
            response: Response = RedirectResponse(request.url.path, SEE_OTHER)
            response.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return response
        return await call_next(request)


class Pages:
    """The handlers of one review.

    Args:
        store: of the review.
    """

    def __init__(self, store: ReviewStore) -> None:
        self._store = store
        self._title = str(store.meta("title"))

    async def start(self, request: Request) -> Response:
        """Ask who is labelling, and show how far everyone is."""
        del request
        return await run_in_threadpool(self._start)

    def _start(self, fault: str = "") -> Response:
        counts: dict[str, int] = {}
        for answer in self._store.answers():
            counts[answer.annotator] = counts.get(answer.annotator, 0) + 1
        values = {"title": self._title, "annotators": counts, "items": self._store.count(), "fault": fault}
        return HTMLResponse(render("review_start.html.j2", **values), 400 if fault else 200)

    async def enter(self, request: Request) -> Response:
        """Take an annotator's name and go to the first text without an answer."""
        name = " ".join(str((await request.form()).get("annotator", "")).split())
        if not 0 < len(name) <= MAX_NAME or "/" in name:
            fault = f"a name has 1 to {MAX_NAME} characters, and no slash"
            return await run_in_threadpool(self._start, fault)
        return RedirectResponse(path_of(name), SEE_OTHER)

    async def resume(self, request: Request) -> Response:
        """Go to the first text without an answer, or to the last one when all have one."""
        annotator = request.path_params["annotator"]
        return RedirectResponse(await run_in_threadpool(self._next, annotator), SEE_OTHER)

    def _next(self, annotator: str, after: int = 0) -> str:
        done, count = {answer.item for answer in self._store.answers(annotator)}, self._store.count()
        order = [*range(after + 1, count + 1), *range(1, after + 1)]
        number = next((each for each in order if each not in done), None)
        return f"{path_of(annotator)}/{'done' if number is None else number}"

    async def show(self, request: Request) -> Response:
        """Show one text."""
        return await run_in_threadpool(self._show, request.path_params["annotator"], request.path_params["number"])

    def _show(self, annotator: str, number: int, fault: str = "") -> Response:
        item = self._store.item(number)
        if item is None:
            return PlainTextResponse(f"no such text: {number}", 404)
        answers = {answer.item: answer for answer in self._store.answers(annotator)}
        keys = [*KEYS, *[""] * len(self._store.classes())]
        page = render(
            "review_item.html.j2",
            title=self._title,
            item=item,
            items=self._store.count(),
            done=len(answers),
            annotator=annotator,
            here=path_of(annotator),
            classes=[(*each, key) for each, key in zip(self._store.classes().items(), keys, strict=False)],
            answer=answers.get(number),
            fault=fault,
            max_name=MAX_NAME,
            max_note=MAX_NOTE,
        )
        return HTMLResponse(page, 400 if fault else 200)

    async def save(self, request: Request) -> Response:
        """Record an answer and go on to the next text without one."""
        form = {key: str(value) for key, value in (await request.form()).items()}
        return await run_in_threadpool(
            self._save, request.path_params["annotator"], request.path_params["number"], form
        )

    def _save(self, annotator: str, number: int, form: dict[str, str]) -> Response:
        try:
            chosen = form.get("class", "")
            if "add" in form:
                class_id = self._store.add_class(form.get("new", ""), annotator)
            elif chosen.isascii() and chosen.isdigit() and len(chosen) < 10:
                class_id = int(chosen)
            else:
                raise DataError("choose an error class, or name a new one")
            self._store.answer(number, annotator, class_id, form.get("note", "").strip())
        except DataError as error:
            return self._show(annotator, number, str(error))
        return RedirectResponse(self._next(annotator, after=number), SEE_OTHER)

    async def undo(self, request: Request) -> Response:
        """Take back the last answer and show its text."""
        annotator = request.path_params["annotator"]
        number = await run_in_threadpool(self._store.undo, annotator)
        return RedirectResponse(path_of(annotator) + ("" if number is None else f"/{number}"), SEE_OTHER)

    async def done(self, request: Request) -> Response:
        """Show that every text has an answer."""
        annotator = request.path_params["annotator"]
        values = {"title": self._title, "annotator": annotator, "items": await run_in_threadpool(self._store.count)}
        return HTMLResponse(render("review_done.html.j2", here=path_of(annotator), **values))


def path_of(annotator: str) -> str:
    """Return the address of an annotator's pages."""
    return f"/by/{quote(annotator, safe='')}"


async def static(request: Request) -> Response:
    """Send the style sheet or the script."""
    name = request.path_params["name"]
    if name not in STATIC:
        return PlainTextResponse("there is no such file", 404)
    return FileResponse(HERE / name, media_type=STATIC[name])


def make_app(store: ReviewStore, token: str, port: int) -> Starlette:
    """Return the application of one review.

    Args:
        store: of the review.
        token: that every request has to bring.
        port: of the server, on loopback.
    """
    pages = Pages(store)
    hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))
    return Starlette(
        routes=[
            Route("/", pages.start),
            Route("/", pages.enter, methods=["POST"]),
            Route("/static/{name}", static),
            Route("/by/{annotator}", pages.resume),
            Route("/by/{annotator}/done", pages.done),
            Route("/by/{annotator}/undo", pages.undo, methods=["POST"]),
            Route("/by/{annotator}/{number:int}", pages.show),
            Route("/by/{annotator}/{number:int}", pages.save, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, token=token, hosts=hosts)],
    )
