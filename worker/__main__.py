"""`python -m worker`: moves the queue into PostgreSQL until it is told to stop; `--help` tells the other commands."""

import asyncio
import contextlib
import signal
import sys

from core import tracing
from core.durability import verify
from core.epochs import Epochs, nothing_remembered
from core.metrics import tell_build
from core.queue import connect
from core.sampling import show_redis_pool
from core.settings import Environment, SettingsError, report
from core.telemetry import configure_logging
from worker import commands, health
from worker.outage import Outage
from worker.settings import Settings, read
from worker.writer import Writer, run

# Two lanes, the renewal, the scrape, and room for one that is being replaced.
REDIS_CONNECTIONS = 8


async def work(settings: Settings) -> int:
    """The process's exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    redis_outage, postgres_outage = Outage("redis", stop), Outage("postgresql", stop)
    epochs = Epochs(settings.redis, settings.postgres, "chatbot-worker-epochs", nothing_remembered)
    async with (
        contextlib.aclosing(epochs),
        connect(settings.redis, REDIS_CONNECTIONS, epochs.greet) as redis,
        health.serving(settings.host, settings.health_port, [redis_outage, postgres_outage]),
    ):
        verified = asyncio.create_task(verify(redis, settings.redis_appendfsync, redis_outage.note))
        stopped = asyncio.create_task(stop.wait())
        show_redis_pool(redis.connection_pool)
        await asyncio.wait([verified, stopped], return_when=asyncio.FIRST_COMPLETED)
        if verified.done() and verified.result():
            return 2
        await run(Writer(settings, redis, epochs, stop, redis_outage, postgres_outage))
    return 0


def main() -> int:
    arguments = commands.parser().parse_args()
    try:
        settings = read(Environment())
    except SettingsError as error:
        sys.stderr.write(report(error))
        return 2
    configure_logging(settings.log_level)
    if arguments.command is not None:
        return asyncio.run(commands.carry_out(arguments, settings))
    tell_build("worker")
    tracing.start(settings.traces, "chatbot-worker")
    try:
        return asyncio.run(work(settings))
    finally:
        tracing.stop()


if __name__ == "__main__":
    sys.exit(main())
