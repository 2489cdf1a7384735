"""A Redis that is wiped, rewound and started again under several processes, in any order that hypothesis can think of.

tests/model_runs.py tells how to try more of them than `make test` does.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator

import pytest

from api import loading
from api.settings import read_settings
from api.upstream.routing import Routing
from core.settings import Environment
from core.store import connect, open_pool
from tests.loss_model import LossModel
from tests.loss_pods import Stores
from tests.model_runs import bite, check, model_redis
from tests.model_server import Break, GuaranteeError, ModelServer
from tests.running import Part, Postgres
from worker.migrate import migrate

# The texts that a broken variant replaces. The product's own scripts break no promise, so whatever is caught is its.
DOUBT = "return lost and tonumber(epoch or '0') < tonumber(lost)"
BROKEN: dict[str, list[Break]] = {
    "a put back that queues nothing": [("put_back", "redis.call('RPUSH', QUEUE, entry)", "")],
    "a put back that shows nothing": [
        ("put_back", "\n  show(tenant, conversation, position, kind, id, extra, body)", "")
    ],
    "a put back that counts nothing": [("put_back", "redis.call('HINCRBY', conv, 'unstored', 1)", "")],
    "a put back that brings back what was deleted": [("put_back", "redis.call('HSET', conv, 'deleted', '1')", "")],
    "a copy that nobody doubts": [(name, DOUBT, "return false") for name in ("append", "begin", "read", "take_ticket")],
    "a completion without what is queued": [
        (
            "complete",
            "if queued then\n  for _, element in ipairs(redis.call('LRANGE', list, 0, -1))",
            "if queued then\n  for _, element in ipairs({})",
        )
    ],
    "a completion without what is stored": [("complete", "for index = FIRST_ITEM, #ARGV do", "for index = 1, 0 do")],
    "a completion that brings back what was deleted": [
        ("complete", "string.gmatch(queued_deletes, '%S+')", "string.gmatch('', '%S+')")
    ],
    "an epoch that ends behind what was lost": [
        ("renew", "state[1] .. ':' .. text(tail)", "state[1] .. ':' .. text(tail + 1)")
    ],
    "a response that is not shown again": [
        ("restore_response", "if known[1] and known[1] ~= 'in_progress' then", "if true then")
    ],
    "a response that runs on": [
        ("restore_response", "if known[1] and known[1] ~= 'in_progress' then", "if known[1] then")
    ],
}


@pytest.fixture
def stores_with(
    valkey: Part,
    postgres: Postgres,
    database: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Stores]:
    monkeypatch.setattr(loading, "WAIT_SECONDS", 0)
    # Each loss is told, thousands of times.
    caplog.set_level(logging.CRITICAL)
    environment = {"PG_HOST": postgres.host, "PG_PORT": str(postgres.port), "PG_USER": postgres.user}
    settings = read_settings(Environment({**environment, "PG_DATABASE": database, "AUTH": "none", "MODEL": "echo"}))
    with asyncio.Runner() as runner, model_redis(valkey) as redis:
        server = ModelServer(redis, BROKEN[request.param] if hasattr(request, "param") else ())
        runner.run(migrate(settings.postgres))
        pool = runner.run(open_pool(settings.postgres, 1, "model"))
        connection = runner.run(connect(settings.postgres, "model"))
        # Nobody kills this server meanwhile.
        runner.run(connection.execute("SET synchronous_commit = off"))
        yield Stores(runner.get_loop(), server, settings, Routing(settings.upstreams), pool, connection)
        runner.run(connection.close())
        runner.run(pool.close())


def machine_on(stores: Stores) -> type[LossModel]:
    class Machine(LossModel):
        def __init__(self) -> None:
            super().__init__(stores)

    return Machine


def test_no_interleaving_breaks_a_promise(stores_with: Stores) -> None:
    check(machine_on(stores_with))


def lost_twice(machine: LossModel) -> None:
    """Redis is lost again before PostgreSQL has what was put back."""
    machine.lose_it("wiped")
    machine.greet(0)
    machine.lose_it("wiped")
    machine.greet(0)


def lost_behind_the_answer(machine: LossModel) -> None:
    """Redis is lost between its answer to a finish and the process's taking note of it."""
    machine.begin(0, 0)
    machine.finish(-1, 2, "wiped")
    machine.end_later(0)


def lost_with_a_delete(machine: LossModel) -> None:
    """Redis comes back as it was when the delete of an item was queued, and PostgreSQL has the item."""
    machine.append(0, 0, 2)
    machine.delete_item(0, 0, 0, stored=True, kept=True)
    machine.append(0, 0, 1)
    machine.lose_it("rewound")
    machine.read(0)


def lost_with_a_deleted_response(machine: LossModel) -> None:
    """The response of a hidden thread is deleted, of which PostgreSQL does not know; the next turn goes on there."""
    machine.take_turn_behind(0, 0, 2, "", anew=True)
    machine.take_turn_behind(0, 0, 2, "", anew=False)
    machine.work(3, "acknowledged")
    machine.delete_response(0, 0)
    machine.lose_it("wiped")
    machine.take_turn_behind(0, 0, 1, "", anew=False)


def lost_with_an_uncounted_delete(machine: LossModel) -> None:
    """The response that is deleted had left its conversation as it was, and that is in no memory."""
    machine.begin(0, 0)
    machine.finish(-1, 0)
    machine.work(100, "acknowledged")
    machine.evict(0)
    machine.delete_response(0, 0)
    machine.lose_it("wiped")
    machine.greet(0)


def lost_behind_a_delete(machine: LossModel) -> None:
    """Redis comes back with a response whose delete PostgreSQL has, and whoever deleted it has died."""
    machine.take_turn(0, 0, 1, "", kept=False)
    machine.work(100, "acknowledged")
    machine.keep_a_copy()
    machine.delete_response(1, 0)
    machine.append(1, 0, 1)
    machine.work(100, "acknowledged")
    machine.lose_it("rewound")
    machine.die(1)
    machine.read(0)


def lost_while_it_ran(machine: LossModel) -> None:
    """Redis comes back as it was before the turn had ended."""
    machine.take_turn(0, 0, 2, "", kept=True)
    machine.lose_it("rewound")
    machine.read(0)
    machine.sweep(1)
    machine.read(1)


def lost_what_is_stored(machine: LossModel) -> None:
    """Redis comes back without what PostgreSQL has, and whoever remembered it has died."""
    machine.work(100, "acknowledged")
    machine.keep_a_copy()
    machine.append(1, 0, 2)
    machine.work(100, "acknowledged")
    machine.die(1)
    machine.append(0, 0, 1)
    machine.lose_it("rewound")
    machine.read(0)


KNOWN = [
    lost_twice,
    lost_behind_the_answer,
    lost_with_a_delete,
    lost_with_a_deleted_response,
    lost_with_an_uncounted_delete,
    lost_behind_a_delete,
    lost_while_it_ran,
    lost_what_is_stored,
]


@pytest.mark.parametrize("steps", KNOWN)
def test_nothing_that_is_remembered_is_lost(stores_with: Stores, steps: Callable[[LossModel], None]) -> None:
    take(stores_with, steps)


def take(stores: Stores, steps: Callable[[LossModel], None]) -> None:
    """A known order of steps, without hypothesis."""
    machine = LossModel(stores)
    steps(machine)
    machine.promises_hold()
    machine.teardown()


def try_all(stores: Stores) -> None:
    for steps in KNOWN:
        take(stores, steps)
    bite(machine_on(stores))


@pytest.mark.parametrize("stores_with", BROKEN, indirect=True)
def test_a_broken_script_is_caught(stores_with: Stores) -> None:
    with pytest.raises(GuaranteeError):
        try_all(stores_with)
