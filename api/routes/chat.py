"""/v1/chat/completions: a turn asked for and answered in the older shapes."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from redis.exceptions import RedisError
from starlette.responses import Response

from api import errors
from api.connections import Connections
from api.errors import ApiError
from api.idempotency import Idempotency
from api.routes.edge import caller_of, connections_of, idempotency_of, json_response, read_body, told
from api.routes.stream import EventStream, begun, leaving
from api.schemas.chat import ChatTurn, CreateChatCompletion
from api.schemas.edge import parse
from api.turn.as_chat import Chunks, completion, error_frame
from api.turn.follow import CutError, ended_body, follow, follow_log
from api.turn.opening import Replay
from api.turn.run import wait_for_body
from api.turn.running import Turn
from api.turn.stored import start_turn
from api.turn.unstored import start_unstored
from api.upstream.exchange import UpstreamError

router = APIRouter(prefix="/v1/chat/completions")

# What a turn's errors call it, and what it is called here.
NAMES = {"input": "messages", "conversation": "metadata.conversation", "max_output_tokens": "max_completion_tokens"}


@router.post("")
async def create(request: Request) -> Response:
    connections = connections_of(request)
    raw = await read_body(request, connections.settings.body_limit_bytes)
    body, once = parse(CreateChatCompletion, raw), idempotency_of(connections, request, raw)
    try:
        asked = body.turn()
        if asked.store:
            return await _stored(connections, request, body, asked, once)
        return await _unstored(connections, request, body, asked)
    except (ApiError, UpstreamError) as error:
        _rename(error)
        raise


def _rename(error: ApiError | UpstreamError) -> None:
    error.param = NAMES.get(error.param or "", error.param)


async def _stored(
    connections: Connections, request: Request, body: CreateChatCompletion, asked: ChatTurn, once: Idempotency
) -> Response:
    caller = caller_of(request)
    try:
        turn = await start_turn(connections, caller, asked, once)
    except Replay as earlier:
        if body.stream:
            return await _stream(body, follow_log(connections, caller.tenant, earlier.response, 0), earlier.response)
        return json_response(completion(await ended_body(connections, caller.tenant, earlier.response)))
    if body.stream:
        return await _stream(body, follow(connections, turn), turn.response, turn)
    return json_response(completion(await wait_for_body(turn)))


async def _unstored(
    connections: Connections, request: Request, body: CreateChatCompletion, asked: ChatTurn
) -> Response:
    """Nothing of it remains, so it stops when its client leaves."""
    turn = await start_unstored(connections, caller_of(request), asked)
    async with leaving(request.receive, turn.leave):
        if body.stream:
            return await _stream(body, follow(connections, turn), turn.response, turn)
        return json_response(completion(await wait_for_body(turn)))


async def _stream(
    body: CreateChatCompletion, events: AsyncIterator[list[bytes]], response: str, turn: Turn | None = None
) -> Response:
    """Begins with the first piece of the answer, so that what fails before it has an HTTP status of its own."""
    chunks = _chunks(events, Chunks(include_usage=body.include_usage), response, turn)
    return EventStream(await begun(chunks), None if turn is None or turn.stored else turn.leave)


async def _chunks(
    events: AsyncIterator[list[bytes]], chunks: Chunks, response: str, turn: Turn | None
) -> AsyncIterator[list[bytes]]:
    """Lists of frames. What fails is raised before the first of them, and told by a last one afterwards.

    A stream that only ended would look whole: these clients wait for no terminal event.
    """
    began = False
    try:
        async for frames in events:
            ready, failure = chunks.take_all(frames)
            if ready:
                yield ready
                began = True
            if failure is not None:
                raise failure
    except (ApiError, CutError, RedisError) as error:
        problem = _problem(error, response, turn)
        if not began:
            raise problem from error
        last = told(problem)
        _rename(last)
        yield [error_frame(last)]


def _problem(error: Exception, response: str, turn: Turn | None) -> Exception:
    """The turn itself knows best; an event has no status, and a cut no reason."""
    if turn is not None and turn.failure is not None:
        return turn.failure
    if isinstance(error, CutError):
        return errors.outcome_unknown(response)
    return error
