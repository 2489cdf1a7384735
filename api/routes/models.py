"""/v1/models: what can be asked for."""

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from api import errors
from api.routes.edge import connections_of, json_response

router = APIRouter(prefix="/v1/models")


def _model(name: str, owner: str) -> dict[str, str | int]:
    # Chat-completions servers give no reliable date; 0 says so and keeps the SDKs' types.
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


@router.get("")
async def models(request: Request) -> Response:
    owners = await connections_of(request).upstream.models()
    return json_response(orjson.dumps({"object": "list", "data": [_model(*one) for one in owners.items()]}))


@router.get("/{model:path}")
async def model(request: Request, model: str) -> Response:
    owners = await connections_of(request).upstream.models()
    if model not in owners:
        raise errors.not_found("model", model, "model")
    return json_response(orjson.dumps(_model(model, owners[model])))
