"""A state machine over a Redis that is lost under several processes, which put back what they remember.

The processes are the product's own code (tests/loss_pods.py), PostgreSQL is a real one. What the machine knows is what
was acknowledged to whom, and who remembered it when Redis was wiped, rewound or started again.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from api.history.steps import LOCK_MS
from core.entry import Kind
from core.queue import QUEUE
from core.store import losses
from tests.loss_pods import Held, Pod, Stores, Turn, Worker, numbers
from tests.loss_promises import Fact, Facts
from tests.model_runs import Model
from tests.model_server import Copy
from tests.ownership import violations
from tests.queue_calls import keys
from worker.queue import LEASE_MS

T = TypeVar("T")
WHICH = st.integers(0, 9)
NEWEST = st.sampled_from([-1, -1, -1, -2, -3])
PODS = st.sampled_from([0, 1])
LOSSES = st.sampled_from(["rewound", "rewound", "wiped", "started again"])
STRIKES = st.sampled_from(["", "", "", "rewound", "wiped"])
TALKS = 3
# Steps between two losses, or there would be nothing to lose.
CALM = 3
# Who is refused a loader's ticket comes again that much later.
WAITING_MS = 1000


class LossModel(Model):
    def __init__(self, stores: Stores) -> None:
        super().__init__(stores.server)
        self.stores = stores
        self.server.waiting_ms = WAITING_MS
        self.tenant = f"tenant{next(numbers)}"
        self.sql(stores.connection.execute("DELETE FROM queue_epochs"))
        self.pods = [Pod(stores, self.tenant) for _ in range(2)]
        self.worker = Worker(stores)
        self.facts = Facts()
        self.talks: list[str] = []
        self.turns: list[tuple[Pod, Turn]] = []
        self.held: list[Held] = []
        self.kept: Copy | None = None
        self.number = 0
        self.calm = self.losses = 0
        self.create(0, 1)

    def sql(self, steps: Coroutine[Any, Any, T]) -> T:
        return self.stores.loop.run_until_complete(steps)

    def names(self, count: int) -> list[str]:
        self.number += count
        return [f"msg_{self.number - index}" for index in reversed(range(count))]

    def queue(self) -> list[bytes]:
        entries: list[Any] = self.server.redis.lrange(QUEUE, 0, -1)
        return entries

    def ask(self, pod: Pod, steps: Coroutine[Any, Any, T], strike: str = "") -> T | str:
        """A request, and what it was acknowledged. `strike`: Redis is lost behind its first answer."""
        pod.greet()
        if strike:
            self.server.after_reply = lambda: self.strike(pod, strike)
        pod.ring.heard.clear()
        reply = pod.try_to(steps)
        # A repetition after a lost reply tells nothing, but what it queued is there.
        self.facts.add(pod, dict.fromkeys([*pod.ring.heard, *self.queue()]), pod.ring.heard)
        self.server.after_reply = None
        return reply

    async def strike(self, pod: Pod, how: str) -> None:
        """Another connection of the same process has noticed it already."""
        self.lose_it(how)
        await pod.epochs.greet_anew()

    # --- clients

    @precondition(lambda self: len(self.talks) < TALKS)
    @rule(pod=PODS, count=st.integers(0, 2))
    def create(self, pod: int, count: int) -> None:
        self.talks.append(f"conv_{len(self.talks)}")
        self.ask(self.pods[pod], self.pods[pod].append(self.talks[-1], self.names(count), create=True))

    @rule(pod=PODS, which=WHICH, count=st.integers(1, 2))
    def append(self, pod: int, which: int, count: int) -> None:
        self.ask(self.pods[pod], self.pods[pod].append(self.talk(which), self.names(count), create=False))

    @precondition(lambda self: self.number - self.calm >= CALM)
    @rule(pod=PODS, which=WHICH, how=LOSSES)
    def append_and_lose(self, pod: int, which: int, how: str) -> None:
        self.ask(self.pods[pod], self.pods[pod].append(self.talk(which), self.names(1), create=False), how)

    def talk(self, which: int) -> str:
        return self.talks[which % len(self.talks)]

    @rule(pod=PODS, which=WHICH)
    def begin(self, pod: int, which: int) -> None:
        talk = self.talk(which)
        begun = self.ask(self.pods[pod], self.pods[pod].begin(talk))
        if isinstance(begun, tuple):
            self.turns.append((self.pods[pod], begun[0]))
            self.check(talk, begun[1])
        else:
            self.check(talk, begun)

    @precondition(lambda self: self.turns)
    @rule(which=NEWEST, count=st.integers(0, 2), strike=STRIKES)
    def finish(self, which: int, count: int, strike: str = "") -> None:
        pod, turn = self.turns.pop(which % len(self.turns))
        names = self.names(count)
        self.ask(pod, pod.finish(turn, names), strike if self.number - self.calm >= CALM else "")

    @rule(pod=PODS, which=WHICH, count=st.integers(1, 2), strike=STRIKES, kept=st.booleans())
    def take_turn(self, pod: int, which: int, count: int, strike: str, kept: bool) -> None:
        """`kept`: the copy to which Redis is rewound takes it for running."""
        before = len(self.turns)
        self.begin(pod, which)
        if len(self.turns) > before:
            if kept:
                self.keep_a_copy()
            self.finish(-1, count, strike)

    @rule(pod=PODS, which=WHICH, count=st.integers(1, 2), strike=STRIKES, anew=st.booleans())
    def take_turn_behind(self, pod: int, which: int, count: int, strike: str, anew: bool) -> None:
        """A turn in a thread: behind the last response of it, or of a conversation, it goes on or branches."""
        told = self.responses()
        previous = None if anew or not told else told[-1 - which % len(told)]
        name = "" if previous is None else previous.entry.id
        begun = self.ask(self.pods[pod], self.pods[pod].begin(previous=name))
        self.check_behind(previous, begun if isinstance(begun, str) else begun[1])
        if isinstance(begun, tuple):
            self.turns.append((self.pods[pod], begun[0]))
            self.finish(-1, count, strike)

    def check_behind(self, previous: Fact | None, found: list[str] | str) -> None:
        self.look()
        if previous is None or isinstance(found, str):
            if "not_found" in found and previous is not None and self.facts.shows_response(previous):
                self.fail(f"{previous.entry.id} has no successor: {found}")
            return
        may, must = self.facts.behind(previous)
        if lacking := must - set(found):
            self.fail(f"a turn behind {previous.entry.id} lacks {lacking}")
        if found != [name for name in may if name in set(found)]:
            self.fail(f"a turn behind {previous.entry.id} has {found}, of {may}")

    @rule(pod=PODS, which=WHICH)
    def delete(self, pod: int, which: int) -> None:
        self.ask(self.pods[pod], self.pods[pod].delete(self.talk(which)))

    @rule(pod=PODS, which=WHICH, item=WHICH, stored=st.booleans(), kept=st.booleans())
    def delete_item(self, pod: int, which: int, item: int, stored: bool = False, kept: bool = False) -> None:
        """`stored`: PostgreSQL has the item; `kept`: the copy to which Redis is rewound knows of the delete."""
        items = self.facts.of(self.talk(which), Kind.ITEM)
        if items:
            if stored:
                self.work(100, "acknowledged")
            name = items[item % len(items)].entry.id
            self.ask(self.pods[pod], self.pods[pod].delete_item(self.talk(which), name))
            if kept:
                self.keep_a_copy()

    @rule(pod=PODS, which=WHICH)
    def delete_response(self, pod: int, which: int) -> None:
        told = self.responses()
        if told:
            self.ask(self.pods[pod], self.pods[pod].delete_response(told[which % len(told)].entry.id))

    def responses(self) -> list[Fact]:
        return [fact for fact in self.facts.told if fact.entry.kind is Kind.RESPONSE]

    @rule(pod=PODS)
    def read(self, pod: int) -> None:
        reader = self.pods[pod]
        for talk in self.talks:
            self.check(talk, self.ask(reader, reader.read(talk)))
        for fact in self.responses():
            found = self.ask(reader, reader.read_response(fact.entry.id))
            self.look()
            wanted = self.facts.shows_response(fact)
            status = orjson.loads(fact.entry.body)["status"]
            if (wanted is True and found != status) or (wanted is False and found == status):
                self.fail(f"{fact.entry.id} is {found}, not {status if wanted else 'gone'}")

    def check(self, talk: str, found: list[str] | str) -> None:
        self.look()
        may, must, gone = self.facts.shown(talk)
        if isinstance(found, str):
            if "not_found" in found and gone is False:
                self.fail(f"{talk} is not found")
            return
        if gone:
            self.fail(f"{talk} was deleted, and has {found}")
        if lacking := must - set(found):
            self.fail(f"{talk} lacks {lacking}")
        if found != [name for name in may if name in set(found)]:
            self.fail(f"{talk} has {found}, of {may}")

    # --- the worker

    @rule(
        count=st.sampled_from([1, 3, 9]), until=st.sampled_from(["claimed", "stored", "acknowledged", "acknowledged"])
    )
    def work(self, count: int, until: str) -> None:
        held = self.worker.do(self.worker.claim(count))
        if held is None:
            return
        if until != "claimed":
            self.store(held)
        if until == "acknowledged":
            self.worker.do(self.worker.acknowledge(held))
        else:
            self.held.append(held)

    def store(self, held: Held) -> None:
        self.worker.do(self.worker.store(held))
        self.facts.stored.update(held.lease.entries)

    @precondition(lambda self: self.held)
    @rule(which=NEWEST, back=st.booleans())
    def go_on(self, which: int, back: bool) -> None:
        """Late or not; `back`: PostgreSQL did not take it, so it is given back."""
        held = self.held.pop(which % len(self.held))
        if held.stored is None and back:
            self.worker.do(self.worker.give_back(held))
            return
        if held.stored is None:
            self.store(held)
        self.worker.do(self.worker.acknowledge(held))

    # --- time, memory

    @rule(milliseconds=st.sampled_from([LEASE_MS, LOCK_MS, 1]))
    def pass_time(self, milliseconds: int) -> None:
        self.server.move_clock(milliseconds)

    @rule(pod=PODS)
    def sweep(self, pod: int) -> None:
        """Whoever lives has noticed a loss long before others take over what it ran."""
        for one in self.pods:
            one.greet()
            one.end_later()
        self.server.move_clock(LOCK_MS)
        self.ask(self.pods[pod], self.pods[pod].sweep())

    @rule(which=WHICH)
    def evict(self, which: int) -> None:
        talks = sorted({fact.entry.conversation for fact in self.facts.told})
        for name in keys(talks[which % len(talks)], self.tenant):
            if self.server.redis.pttl(name) > 0:
                self.server.redis.delete(name)

    # --- Redis is lost

    @rule()
    def keep_a_copy(self) -> None:
        self.kept = self.server.copy()

    @precondition(lambda self: self.number - self.calm >= CALM)
    @rule(how=LOSSES, noticed=st.booleans())
    def lose(self, how: str, noticed: bool) -> None:
        self.lose_it(how)
        if noticed:
            self.read(0)

    def lose_it(self, how: str) -> None:
        self.calm = self.number
        self.losses += 1
        if how == "started again":
            self.server.restart()
        elif how == "rewound" and self.kept is not None:
            self.server.restore(self.kept)
        else:
            self.server.clear()
        self.server.restart_clock()
        self.look()
        self.facts.excuse()

    @rule(pod=PODS)
    def greet(self, pod: int) -> None:
        self.pods[pod].greet()

    @rule(pod=PODS)
    def end_later(self, pod: int) -> None:
        self.pods[pod].end_later()
        self.read(pod)

    @rule(pod=PODS)
    def bring_reports(self, pod: int) -> None:
        self.pods[pod].do(self.pods[pod].epochs.bring())

    @rule(pod=PODS)
    def die(self, pod: int) -> None:
        dead = self.pods[pod]
        dead.die()
        self.turns = [(owner, turn) for owner, turn in self.turns if owner is not dead]
        self.pods[pod] = Pod(self.stores, self.tenant)
        self.look()
        self.facts.forget(dead)

    # --- what must hold

    def look(self) -> None:
        self.facts.queued = set(self.queue())

    @invariant()
    def promises_hold(self) -> None:
        self.look()
        for broken in self.facts.missing():
            self.fail(broken)

    def teardown(self) -> None:
        if self.broken:
            return
        for pod in self.pods:
            pod.greet()
            pod.end_later()
        self.promises_hold()
        self.server.move_clock(LOCK_MS)
        self.sweep(0)
        self.drain()
        for pod in self.pods:
            pod.do(pod.epochs.bring())
        self.check_rows()
        self.check_keys()
        self.read(1)
        for talk in self.talks:
            found = self.ask(self.pods[1], self.pods[1].read(talk))
            if found != self.facts.rows(talk) and not isinstance(found, str):
                self.fail(f"readers of {talk} have {found}, PostgreSQL {self.facts.rows(talk)}")
        for pod in self.pods:
            pod.die()

    def drain(self) -> None:
        while self.queue():
            self.server.move_clock(LEASE_MS)
            self.work(100, "acknowledged")

    def check_keys(self) -> None:
        """Nothing lives for ever of what is stored, and nothing runs."""
        found = self.sql(violations(self.server.client))
        if wrong := [one for one in found if not one.startswith("model:")]:
            self.fail(f"keys without an owner: {wrong}")

    def check_rows(self) -> None:
        fetch = self.stores.connection.fetch
        rows = self.sql(
            fetch("SELECT conversation, id FROM items WHERE tenant = $1 ORDER BY conversation, position", self.tenant)
        )
        for talk in {*self.talks, *(fact.entry.conversation for fact in self.facts.told)}:
            found = [row["id"] for row in rows if row["conversation"] == talk]
            if found != self.facts.rows(talk):
                self.fail(f"{talk} is stored as {found}, not {self.facts.rows(talk)}")
        letters = self.sql(fetch("SELECT reason, entry FROM dead_letters WHERE tenant = $1", self.tenant))
        if letters:
            self.fail(f"dead letters: {[tuple(letter) for letter in letters]}")
        counted = sum(loss.entries for loss in self.sql(losses(self.stores.connection)))
        # A queue that is rewound across two epochs may be told to have lost more than it did.
        if counted and not self.facts.lost and self.losses < 2:
            self.fail(f"{counted} entries are told to be lost, though none is")
