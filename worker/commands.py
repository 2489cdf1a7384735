"""The commands: the schema, what is queued, and what to do with entries that PostgreSQL refused."""

import argparse
import contextlib
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.epochs import Epochs, nothing_remembered
from core.queue import connect as connect_redis
from core.store import UNREACHABLE, Loss, losses
from core.store import connect as connect_postgres
from core.troubles import redis_trouble
from worker import queue
from worker.batch import header_of, marked
from worker.condition import status
from worker.dead_letters import store
from worker.migrate import migrate_within
from worker.settings import Settings
from worker.verdict import describe

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m worker", description="Moves the queue from Redis into PostgreSQL.")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="without COMMAND it runs until stopped")
    migration = commands.add_parser("migrate", help="bring the schema up to date; does nothing when it is")
    migration.add_argument("--wait-seconds", type=float, default=0.0, help="how long PostgreSQL may be away; 0")
    letters = commands.add_parser("dead-letters", help="entries that PostgreSQL refused for what they hold")
    actions = letters.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="the oldest ones, without their content")
    listing.add_argument("--limit", type=int, default=100)
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    actions.add_parser("show", help="one whole entry, content included").add_argument("id", type=int)
    for name, told in (("replay", "queue them again"), ("drop", "delete them for good")):
        actions.add_parser(name, help=told).add_argument("id", type=int, nargs="+")
    looks = commands.add_parser("queue", help="the queue").add_subparsers(dest="action", required=True)
    for name, told in (("status", "what is queued, leased and lost"), ("losses", "what was lost with Redis, and when")):
        looks.add_parser(name, help=told).add_argument("--json", action="store_true", help="one JSON object per line")
    return top


async def carry_out(arguments: argparse.Namespace, settings: Settings) -> int:
    """Run one of the commands; the result is the process's exit status."""
    try:
        if arguments.command == "migrate":
            await migrate_within(settings.postgres, arguments.wait_seconds)
            return 0
        epochs = Epochs(settings.redis, settings.postgres, "chatbot-commands", nothing_remembered)
        async with contextlib.aclosing(epochs), connect_redis(settings.redis, 1, epochs.greet) as redis:
            if arguments.command == "queue":
                return await _look(arguments, settings, redis)
            connection = await connect_postgres(settings.postgres, "chatbot-dead-letters")
            try:
                return await _dead_letters(arguments, connection, redis)
            finally:
                await connection.close()
    except RedisError as error:
        return _refuse(redis_trouble(error, f"this command needs it ({type(error).__name__})"))
    except (asyncpg.PostgresError, *UNREACHABLE) as error:
        sys.stderr.write(f"{describe(error)}: {error}\n")
        return 1


async def _look(arguments: argparse.Namespace, settings: Settings, redis: Redis) -> int:
    if arguments.action == "status":
        numbers, troubles = await status(settings.postgres, redis)
        if arguments.json:
            _tell([{**numbers, "troubles": troubles}], as_json=True)
        else:
            _tell([numbers], as_json=False)
            sys.stdout.write("\n".join(troubles or ["nothing is wrong"]) + "\n")
        return 0
    lost = await _lost(settings)
    if lost is None:
        return _refuse("PostgreSQL can't be reached, and what was lost is written there")
    _tell([dataclasses.asdict(loss) for loss in lost], as_json=arguments.json)
    return 0


async def _lost(settings: Settings) -> list[Loss] | None:
    """What was lost with Redis; None while PostgreSQL is away."""
    try:
        connection = await connect_postgres(settings.postgres, "chatbot-queue")
        try:
            return await losses(connection)
        finally:
            await connection.close()
    except UNREACHABLE:
        return None


async def _dead_letters(arguments: argparse.Namespace, connection: "Connection", redis: Redis) -> int:
    match arguments.action:
        case "list":
            listed = await store.listed(connection, arguments.limit)
            _tell([dataclasses.asdict(letter) for letter in listed], as_json=arguments.json)
        case "show":
            entry = await store.entry_of(connection, arguments.id)
            if entry is None:
                return _refuse(f"there is no dead letter {arguments.id}")
            sys.stdout.buffer.write(entry + b"\n")
        case "drop":
            sys.stdout.write(f"dropped {await store.drop(connection, arguments.id)}\n")
        case "replay":
            return max([await _replay(connection, redis, letter) for letter in arguments.id])
    return 0


async def _replay(connection: "Connection", redis: Redis, letter: int) -> int:
    """The letter stays until the transaction that stores its entry removes it."""
    source = await store.entry_of(connection, letter)
    if source is None:
        return _refuse(f"there is no dead letter {letter}")
    entry = header_of(source)
    if entry is None:
        return _refuse(f"dead letter {letter} has an unreadable header and can't be stored")
    marks = marked(source, letter), marked(source, letter, counted=False)
    await queue.replay(redis, entry.tenant, entry.conversation, *marks)
    sys.stdout.write(f"queued {letter} again\n")
    return 0


def _refuse(reason: str) -> int:
    sys.stderr.write(f"{reason}\n")
    return 1


def _tell(rows: list[dict[str, object]], *, as_json: bool) -> None:
    """One row per line, as JSON or as `name=value` words."""
    for row in rows:
        line = orjson.dumps(row).decode() if as_json else " ".join(f"{name}={value}" for name, value in row.items())
        sys.stdout.write(line + "\n")
