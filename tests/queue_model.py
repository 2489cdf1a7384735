"""A state machine over the queue's scripts: several workers, crashes, lost replies, a Redis that forgets.

Hypothesis chooses the steps; the scripts are the product's own on a real server. What the machine remembers is what was
promised to clients and workers, not how the scripts keep their books. After each step and at the end it compares.
"""

import orjson
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from core.entry import item_tail
from core.queue import QUEUE
from tests.model_store import POISON, REFUSED, identity, read
from tests.queue_checked import CheckedQueue
from tests.queue_promises import Expected, broken_promises, leftovers
from worker.batch import replayed
from worker.queue import LEASE_MS, MAX_FAILURES, MAX_FAILURES_ALONE

CONVERSATIONS = ("conv_1", "conv_2")
# Of a lease that Redis still names but nobody holds.
NEVER = 0
HOUR_MS = 3_600_000
UNREADABLE = "nonsense"
FIRST_NAMES = ["msg", "msg", "msg", REFUSED, POISON, UNREADABLE]
# So many entries and claims lie between two losses of Redis's memory, or there would be nothing to lose.
CALM = 6
# Any of what there is at that moment; hypothesis shrinks it to the oldest.
WHICH = st.integers(0, 9)
COUNT = st.sampled_from([1, 2, 4])
# A poisoned range costs three deaths, one more for each time it is halved (no range has more than 4 entries), and those
# of its last entry alone.
DRAIN_CLAIMS_PER_ENTRY = MAX_FAILURES + 3 + MAX_FAILURES_ALONE


class QueueModel(CheckedQueue):
    # --- clients

    @rule(conversation=st.sampled_from(CONVERSATIONS), count=st.integers(1, 2), first=st.sampled_from(FIRST_NAMES))
    def add_items(self, conversation: str, count: int, first: str) -> None:
        self.append(conversation, count, first)

    def append(self, conversation: str, count: int, first: str) -> None:
        if first == UNREADABLE:
            self.server.redis.rpush(QUEUE, f"{UNREADABLE} {self.next_number()}")
            return self.pushed(1)
        names = [f"{first if index == 0 else 'msg'}_{self.next_number()}" for index in range(count)]
        items = [(name, orjson.dumps({"id": name})) for name in names]
        outcome = self.calls.append(conversation, items, create=False)
        if outcome == "cold":
            last, stored = self.store.hot_copy(conversation)
            if last and not self.calls.load(conversation, last, stored):
                self.fail("a cold conversation can't be loaded")
            outcome = self.calls.append(conversation, items, create=not last)
        if outcome != "ok":
            self.fail(f"append: {outcome}")
        self.pushed(len(items))
        for (name, body), entry in zip(items, self.queue.entries[-count:], strict=True):
            if not entry.endswith(item_tail(name, None, body)):
                self.fail(f"{entry!r} is queued for {name}")
        return None

    @rule(which=WHICH, cold=st.booleans())
    def replay(self, which: int, cold: bool) -> None:
        """`cold`: its conversation has been evicted, and is loaded while the entry waits."""
        if cold or not self.store.dead:
            self.append(CONVERSATIONS[0], 1, REFUSED)
            self.store_some()
        queued = {identity(entry) for entry in self.queue.entries}
        letters = [(read(source), source) for name, source in self.store.dead.items() if name not in queued]
        ready = [(entry, source) for entry, source in letters if entry is not None]
        if ready:
            entry, source = ready[which % len(ready)]
            if cold:
                self.calls.evict(entry.conversation, hash_too=True, list_too=True)
            original = source.partition(b" replay:")[0] + b"\n" + entry.body if replayed(entry) else source
            self.calls.replay(entry.conversation, original, self.next_number())
            self.pushed(2 if self.server.losing_replies else 1)
            if cold:
                self.append(entry.conversation, 1, "msg")

    def store_some(self) -> None:
        """As long as there is anything that nobody has."""
        while self.queue.following < self.queue.tail:
            one = self.claimed(self.new_worker(4))
            if one is not None:
                self.carry(one, "acknowledged")

    def pushed(self, count: int) -> None:
        entries = self.server.newest(QUEUE, count)
        self.queue.entries += entries
        self.promised.update(map(identity, entries))

    # --- workers

    @rule(count=COUNT, lost=st.sampled_from(["", "", "late", "again"]), fresh=st.sampled_from([0, 0, 1, 2]))
    def claim(self, count: int, lost: str = "", fresh: int = 0) -> None:
        """`lost`: the reply was, and the claim is sent again at once or late.

        Often something has just come: hypothesis leaves out rules by whole examples, `append` too.
        """
        if fresh:
            self.append(CONVERSATIONS[fresh - 1], fresh, "msg")
        worker = self.new_worker(count)
        if lost:
            self.ask(worker)
        if lost == "late":
            self.unanswered.append(worker)
        else:
            self.claimed(worker)

    @rule(count=COUNT)
    def take_over(self, count: int) -> None:
        """Claim when every lease has expired: as seldom as it happens, as much can go wrong."""
        self.server.move_clock(LEASE_MS)
        self.claimed(self.new_worker(count))

    @precondition(lambda self: self.unanswered)
    @rule(which=WHICH)
    def claim_again(self, which: int) -> None:
        self.claimed(self.unanswered.pop(which % len(self.unanswered)))

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def work(self, which: int) -> None:
        """Go on with a range to its end, on time or not; who has acknowledged it does so again."""
        self.carry(self.held[which % len(self.held)], "acknowledged")

    @precondition(lambda self: self.held)
    @rule(which=WHICH, until=st.sampled_from(["committed", "written"]))
    def work_a_little(self, which: int, until: str) -> None:
        """A worker of which nothing is heard any more has died."""
        self.carry(self.held[which % len(self.held)], until)

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def extend(self, which: int) -> None:
        one = self.held[which % len(self.held)]
        lease = self.lease_of(one)
        owed = lease is not None and lease.deadline_ms > 0
        if self.calls.extend(one) != owed:
            self.fail("a lease is renewed for who does not hold it" if not owed else "the holder can't renew its lease")
        if lease is not None and owed:
            lease.deadline_ms = self.server.now_ms + LEASE_MS

    @precondition(lambda self: self.held)
    @rule(which=WHICH, ended=st.booleans(), failed=st.booleans(), then=st.sampled_from(["", "again", "claim"]))
    def release(self, which: int, ended: bool, failed: bool, then: str) -> None:
        """Without `ended` its transaction may still be open, and even be committed."""
        self.give_back(self.held[which % len(self.held)], ended=ended, failed=failed, twice=then == "again")
        if then == "claim":
            self.claim(1)

    @rule(first=st.sampled_from(["msg", POISON]), then=st.sampled_from(["", "give back", "die", "die and go on"]))
    def suspect(self, first: str, then: str) -> None:
        """One entry is blamed until it is tried alone: as seldom as it happens, as much can go wrong."""
        self.append(CONVERSATIONS[0], 1, first)
        for _ in range(MAX_FAILURES):
            one = self.claimed(self.new_worker(1))
            if one is None:
                return
            self.give_back(one, ended=True, failed=True)
        one = self.claimed(self.new_worker(1))
        if one is None:
            return
        self.carry(one, "written")
        if then == "give back":
            self.give_back(one, ended=True, failed=False)
        elif then:
            self.take_over(1)
        if then == "die and go on":
            self.carry(one, "acknowledged")

    # --- time, Redis

    @rule(milliseconds=st.sampled_from([LEASE_MS, LEASE_MS // 2, -HOUR_MS]))
    def pass_time(self, milliseconds: int) -> None:
        self.server.move_clock(milliseconds)

    @rule()
    def keep_a_copy(self) -> None:
        self.kept = self.server.copy(), self.queue.copy()

    @precondition(lambda self: self.number - self.lost_at >= CALM)
    @rule(wiped=st.booleans(), claimed=st.booleans(), back=st.booleans())
    def lose_memory(self, wiped: bool, claimed: bool, back: bool) -> None:
        """Redis comes back from the copy, or with nothing; `claimed`: what it has lost is the last claim alone.

        `back`: whoever made that goes on when somebody else has claimed the next range.
        """
        if claimed:
            self.keep_a_copy()
            self.claim(1)
        number = len(self.held) - 1
        self.lost_at = self.next_number()
        if wiped or self.kept is None:
            self.server.clear()
            self.forget(Expected())
        else:
            copy, queue = self.kept
            self.server.restore(copy)
            self.forget(queue.copy())
        if back and number >= 0:
            self.claim(1)
            self.work(number)

    def forget(self, queue: Expected) -> None:
        """Nobody remembers what Redis does not."""
        self.store.forgotten.update(one.session for one in self.held)
        self.store.forgotten.update(session for _, session, _ in self.unanswered)
        self.queue = queue
        kept = {identity(entry) for entry in queue.entries}
        self.promised = {name for name in self.promised if name in kept or self.store.has(name)}
        self.server.restart_clock()
        self.begin_epoch()

    @rule(count=COUNT)
    def start_again(self, count: int) -> None:
        """Redis does, and lacks nothing; a claim whose reply was lost with the connection is sent once more."""
        worker = self.new_worker(count)
        self.ask(worker)
        self.server.restart()
        self.begin_epoch()
        self.claimed(worker)

    def begin_epoch(self) -> None:
        """What it leaves of the leases."""
        self.calls.renew(self.store.floor())
        for lease in self.queue.leases:
            # That Redis has gone is no failure of what it had given.
            if lease.deadline_ms > 0:
                lease.excused, lease.alone = True, frozenset()
            lease.deadline_ms, lease.epoch = 0, NEVER

    @rule(
        conversation=st.sampled_from(CONVERSATIONS), half=st.sampled_from([(True, True), (True, False), (False, True)])
    )
    def evict(self, conversation: str, half: tuple[bool, bool]) -> None:
        self.calls.evict(conversation, hash_too=half[0], list_too=half[1])

    # --- what must hold

    @invariant()
    def promises_hold(self) -> None:
        for broken in broken_promises(self.calls.picture(CONVERSATIONS), self.queue, self.store, self.promised):
            self.fail(broken)

    def teardown(self) -> None:
        """Everybody dies; a new worker drains the queue."""
        if self.broken:
            return
        # Two more: the first one after the clock went back only shortens the leases, the last one finds nothing.
        for _ in range(DRAIN_CLAIMS_PER_ENTRY * len(self.queue.entries) + 2):
            one = self.claimed(self.new_worker(3))
            if one is not None:
                self.carry(one, "acknowledged")
                self.promises_hold()
            elif not self.queue.leases:
                break
            self.server.move_clock(LEASE_MS)
        for broken in leftovers(self.calls.picture(CONVERSATIONS), self.store, self.promised):
            self.fail(broken)
