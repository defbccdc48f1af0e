"""The ASGI application: routes, access, and one line of JSON for every error."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from timesformer_runtime.errors import TimesformerError, quoted
from timesformer_runtime.extras import needs_extra
from timesformer_runtime.serve.failures import kind_of, line_of, status_of
from timesformer_runtime.serve.metrics import Metrics
from timesformer_runtime.serve.people import people_routes
from timesformer_runtime.serve.protocol_routes import protocol_routes
from timesformer_runtime.serve.query import Queries
from timesformer_runtime.serve.service import Service
from timesformer_runtime.serve.site import add_pages

with needs_extra("serve"):
    from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
    from fastapi.responses import JSONResponse, Response
    from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
    from starlette.exceptions import HTTPException as StarletteHTTPException
    from starlette.requests import ClientDisconnect
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_GONE = 499  # as nginx: nobody reads this answer
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "An error, on one line.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}},
                    "required": ["error"],
                }
            }
        },
    }
}


def make_app(service: Service, queries: Queries) -> FastAPI:
    """Makes the application.

    Args:
        service: Works for the requests.
        queries: Read the options of requests.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.engine.close()

    app = FastAPI(
        title="timesformer",
        version=version("timesformer-onnx"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy for HTTPS it would lead to HTTP
        responses=_ERRORS,
    )
    token = service.settings.token
    access = [] if token is None else [Depends(_bearer_check(token))]
    app.include_router(_health_routes())
    app.include_router(
        people_routes(service, queries.classify, queries.timeline), dependencies=access
    )
    app.include_router(protocol_routes(service, queries.infer), dependencies=access)
    app.include_router(_metrics_route(service.engine.metrics), dependencies=access)
    add_pages(app)
    _answer_errors(app, service.engine.metrics)
    app.add_middleware(_RequestCounter, metrics=service.engine.metrics)
    return app


def _bearer_check(token: str) -> Callable[..., Awaitable[None]]:
    """Makes a dependency that lets in only clients with the token."""
    scheme = HTTPBearer(auto_error=False)

    async def check(given: HTTPAuthorizationCredentials | None = Depends(scheme)) -> None:  # noqa: B008
        text = given.credentials if given else ""
        if not secrets.compare_digest(text.encode(), token.encode()):
            raise HTTPException(
                401, "the bearer token is missing or wrong", {"WWW-Authenticate": "Bearer"}
            )

    return check


def _health_routes() -> APIRouter:
    router = APIRouter(prefix="/v2/health", tags=["health"])

    @router.head("/live", include_in_schema=False)
    @router.get("/live", summary="Tell that the process lives")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.head("/ready", include_in_schema=False)
    @router.get("/ready", summary="Tell that models are loaded")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    return router


def _metrics_route(metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["metrics"])

    @router.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def read() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return router


def _answer_errors(app: FastAPI, metrics: Metrics) -> None:
    """Makes every error an object with one line: ``{"error": "..."}``."""

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        line = str(error.detail)
        if line == HTTPStatus(error.status_code).phrase:  # Starlette's own: no route, no method
            line = _why_no_route(request, (error.headers or {}).get("Allow"))
        return JSONResponse({"error": line}, error.status_code, error.headers)

    @app.exception_handler(TimesformerError)
    async def explained(_: Request, error: TimesformerError) -> JSONResponse:
        metrics.count_error(kind_of(error))
        return JSONResponse({"error": line_of(error, {})}, status_of(error))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, _error: ClientDisconnect) -> Response:
        metrics.count_error("ClientDisconnect")
        return Response(status_code=_GONE)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        metrics.count_error(kind_of(error))
        return JSONResponse({"error": "the service failed; its log says why"}, 500)


def _why_no_route(request: Request, allowed: str | None) -> str:
    if allowed is None:
        return f"there is nothing at {quoted(request.url.path)}; /docs describes all requests"
    return f"{quoted(request.url.path)} does not take {quoted(request.method)}; it takes {allowed}"


class _RequestCounter:
    """Counts answered requests by route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            pass  # the service ends, and uvicorn says that it waits no longer
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            method = scope["method"] if scope["method"] in _METHODS else "(other)"
            self._metrics.count_request(route, method, status)
