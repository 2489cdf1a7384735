"""How what goes wrong behind the edge leaves: in OpenAI's shape, whatever it was."""

from typing import cast

from fastapi import FastAPI, Request
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from api import errors
from api.errors import ApiError
from api.routes.edge import METHODS, error_response, told
from api.upstream.exchange import UpstreamError


def _allowed(request: Request) -> list[str]:
    """What the path takes: several routes may share it, and each knows only its own method."""
    routes = request.app.router.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def add_error_answers(app: FastAPI) -> None:
    """Everything that goes wrong leaves in OpenAI's shape."""

    async def on_error(_: Request, error: Exception) -> Response:
        return error_response(told(error))

    async def on_http_error(request: Request, error: Exception) -> Response:
        if cast("HTTPException", error).status_code == 405:
            return error_response(errors.method_not_allowed(request.method, request.url.path, _allowed(request)))
        return error_response(errors.unknown_url(request.method, request.url.path))

    for kind in (ApiError, UpstreamError, RedisError, Exception):
        app.add_exception_handler(kind, on_error)
    app.add_exception_handler(HTTPException, on_http_error)
