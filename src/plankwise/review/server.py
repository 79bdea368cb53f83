"""Serving a review on this machine alone."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import uvicorn

from plankwise.core.claims import ExclusiveClaim
from plankwise.core.errors import OutputError
from plankwise.review.app import make_app
from plankwise.review.store import FILE, ReviewStore

HOST, LOCK = "127.0.0.1", ".serving"


def serve(folder: Path, port: int, *, announce: Callable[[str], None]) -> None:
    """Serve a review until it is interrupted.

    Args:
        folder: of the review.
        port: on loopback; 0 for any that is free.
        announce: is called with the address, which holds the token.

    Raises:
        CheckpointError: if there is no review in the folder.
        OutputError: if the port is in use, or the review is being served already.
    """
    store = ReviewStore(folder / FILE)
    claim = ExclusiveClaim(folder / LOCK, folder)
    try:
        claim.take()
    except OutputError:
        raise OutputError(
            f"the review in {folder} is being served already; several annotators may use one page"
        ) from None
    try:
        with closing(bound(port)) as listening:
            token, used = secrets.token_urlsafe(24), int(listening.getsockname()[1])
            config = uvicorn.Config(make_app(store, token, used), log_level="warning", server_header=False)
            announce(f"http://{HOST}:{used}/?token={token}")
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listening])
    finally:
        claim.release()


def bound(port: int) -> socket.socket:
    """Return a socket that is bound to a port on loopback.

    Raises:
        OutputError: if the port is in use or reserved.
    """
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        why = "in use" if error.errno == errno.EADDRINUSE else str(error.strerror)
        raise OutputError(f"port {port}: {why}; allowed: another --port, or 0 for any that is free") from None
    return listening
