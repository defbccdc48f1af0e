"""The pages for browsers: one to drop a video on, and one that describes the requests.

FastAPI's own page of documentation takes its program from another server. These pages need this
server only, and their policy lets the browser ask no other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from timesformer_runtime.extras import needs_extra

with needs_extra("serve"):
    from fastapi import FastAPI
    from fastapi.responses import FileResponse
    from starlette.staticfiles import StaticFiles

_PAGES = Path(__file__).with_name("pages")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def add_pages(app: FastAPI) -> None:
    """Adds ``/``, ``/docs`` and their files."""
    for route, file in (("/", "index.html"), ("/docs", "docs.html")):
        app.add_api_route(route, _page(file), methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/static", StaticFiles(directory=_PAGES))


def _page(file: str) -> Callable[[], Awaitable[FileResponse]]:
    async def page() -> FileResponse:
        return FileResponse(_PAGES / file, headers=_HEADERS)

    return page
