"""The document as a whole."""

import functools

import orjson

from api.openapi import chat, contexts, failures, objects, response, websocket
from api.openapi.bodies import components
from api.openapi.endpoints import PATHS, TAGS
from api.openapi.notation import Json

ABOUT = (
    "A chat backend that speaks OpenAI's Responses, Conversations and Chat Completions APIs. Every OpenAI SDK is its "
    "client: give it this service's URL with `/v1` as `base_url`.\n\n"
    "Every answer has an `x-request-id`. A path that is not here answers 404 `unknown_url`, a method that is not here "
    "405 `method_not_allowed`."
)


@functools.cache
def document() -> bytes:
    """Built when somebody first asks: it takes some ten milliseconds."""
    return orjson.dumps(_document())


def _document() -> Json:
    return {
        "openapi": "3.1.0",
        "info": {"title": "chatbot", "version": "1", "description": ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": TAGS,
        "paths": PATHS,
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "The service's key; none with `AUTH=none`."}
            },
            "headers": failures.HEADERS,
            "responses": failures.ANSWERS,
            "schemas": {
                **components(),
                **objects.SHAPES,
                **response.SHAPES,
                **chat.SHAPES,
                **contexts.SHAPES,
                **websocket.SHAPES,
                **failures.SHAPES,
            },
        },
    }
