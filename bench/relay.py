"""What this service is compared with: FastAPI and aiohttp, no state; it passes the upstream's bytes on."""

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response, StreamingResponse


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        app.state.session = session
        yield


app = FastAPI(lifespan=lifespan)
URL = os.environ.get("OPENAI_BASE_URL", "") + "/chat/completions"


@app.post("/v1/chat/completions", response_model=None)
async def relay(request: Request) -> Response:
    body = await request.json()
    if not body.get("stream"):
        async with request.app.state.session.post(URL, json=body) as answer:
            return Response(await answer.read(), media_type="application/json")

    async def pieces() -> AsyncIterator[bytes]:
        async with request.app.state.session.post(URL, json=body) as answer:
            async for piece in answer.content.iter_any():
                yield piece

    return StreamingResponse(pieces(), media_type="text/event-stream")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    uvicorn.run(app, host="127.0.0.1", port=port, http="httptools", access_log=False, log_level="warning")
