"""The composition root: what the process is made of, in the order in which it starts and stops."""

import asyncio
import contextlib
import gc
import logging
import math
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from api import metrics
from api.connections import Connections
from api.lanes import Lanes
from api.ring import Ring
from api.routes import chat, conversations, health, models, pages, responses
from api.routes.answers import add_error_answers
from api.settings import Settings
from api.tenants import Keyring
from api.turn.orphans import sweep
from api.turn.pulse import pulse
from api.upstream.reload import watch
from api.upstream.routing import Routing
from core import queue
from core.durability import verify
from core.epochs import Epochs
from core.keepers import end
from core.sampling import show_pool, show_redis_pool, watch_loop, watch_queue
from core.store import open_pool

if TYPE_CHECKING:
    import asyncpg

log = logging.getLogger(__name__)

REDIS_CONNECTIONS = 128
# New objects between two collections; the default of 700 is what a few turns make.
GC_THRESHOLD = 20_000
STORE_CONNECTIONS = 8


def create_app(settings: Settings, keyring: Keyring) -> FastAPI:
    """The application behind the edge; it connects at the first use, so it starts while its stores are away."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pool = await open_pool(settings.postgres, STORE_CONNECTIONS, "chatbot-api")
        upstream = Routing(settings.upstreams)
        # What is there now lives as long as the process.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        try:
            async with asyncio.TaskGroup() as tasks:
                connections = _connect(settings, pool, upstream, tasks)
                app.state.connections = connections
                _show(connections)
                keeping = (
                    connections.lanes.run(),
                    pulse(connections),
                    sweep(connections),
                    connections.epochs.watch(),
                    keyring.watch(),
                    watch(upstream, settings),
                    _verify(app, connections),
                    watch_queue(connections.redis),
                    watch_loop(),
                )
                keepers = [tasks.create_task(keeper) for keeper in keeping]
                yield
                await _drain(connections)
                await end(keepers)
        except BaseExceptionGroup:
            # Without its keepers the process can't hold a lock: better a new one than one that only looks alive.
            log.exception("a task that must live as long as the process has failed")
            app.state.exit_status = 1
            signal.raise_signal(signal.SIGTERM)
            raise
        await upstream.close()
        await pool.close()
        await connections.redis.aclose()
        await connections.epochs.aclose()

    # A redirect would go where the Host header says, and to http behind a proxy that speaks TLS.
    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.draining = False
    app.state.exit_status = 0
    add_error_answers(app)
    for module in (responses, conversations, chat, models, health, pages):
        app.include_router(module.router)
    return app


def _connect(settings: Settings, pool: "asyncpg.Pool[Any]", upstream: Routing, tasks: asyncio.TaskGroup) -> Connections:
    ring = Ring(tasks)
    epochs = Epochs(settings.redis, settings.postgres, "chatbot-api-epochs", ring.put_back)
    redis = queue.connect(settings.redis, REDIS_CONNECTIONS, epochs.greet)
    return Connections(settings, redis, epochs, ring, Lanes(redis), pool, upstream, tasks)


def _show(connections: Connections) -> None:
    """What is counted whenever somebody asks for the metrics."""
    store = connections.store
    metrics.QUEUE_LIMIT.set(connections.settings.queue_limit)
    metrics.TURNS_RUNNING.set_function(lambda: len(connections.running) + len(connections.unstored))
    show_redis_pool(connections.redis.connection_pool)
    show_pool("postgresql", STORE_CONNECTIONS, store.get_idle_size, lambda: store.get_size() - store.get_idle_size())


async def _verify(app: FastAPI, connections: Connections) -> None:
    """End the process when Redis would lose what it acknowledges."""
    if await verify(connections.redis, connections.settings.redis_appendfsync):
        app.state.exit_status = 2
        signal.raise_signal(signal.SIGTERM)


def hand_over_turns(connections: Connections) -> None:
    """The process ends: it takes nothing over any more, and others run again what has produced nothing so far."""
    connections.draining.set()
    connections.truce.begin(math.inf)
    for turn in connections.running.values():
        if turn.repeatable:
            turn.interrupt("shutdown")


def interrupt_turns(connections: Connections) -> None:
    """The time for draining is over: what still runs is closed as incomplete, with the text so far."""
    for turn in (*connections.running.values(), *connections.unstored):
        turn.interrupt("shutdown")


async def _drain(connections: Connections) -> None:
    """Wait for the turns whose clients have left."""
    while connections.running:
        await next(iter(connections.running.values())).changed()
