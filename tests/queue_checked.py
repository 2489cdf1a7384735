"""The queue's scripts as workers call them, each answer compared with what was promised to them and to others."""

from collections import Counter

from tests.model_runs import Model
from tests.model_server import Copy, GuaranteeError
from tests.model_store import ModelStore, SessionEndedError, WorkerDiedError, identity, noted
from tests.queue_calls import QueueCalls, Range
from tests.queue_promises import NOBODY, Expected, Lease
from worker.queue import LEASE_MS, MAX_FAILURES, MAX_FAILURES_ALONE

# Of those who had a range before, the last ones. Each took a lease's time: by then the sessions of the first ones have
# ended by themselves.
TOLD_SESSIONS = 8


class CheckedQueue(Model):
    """What the steps of tests/queue_model.py are made of."""

    def __init__(self, calls: QueueCalls) -> None:
        super().__init__(calls.server)
        self.calls = calls
        self.calls.renew(0)
        self.queue, self.store = Expected(), ModelStore()
        self.held: list[Range] = []
        self.unanswered: list[tuple[str, str, int]] = []
        self.promised: set[str] = set()
        self.failures: Counter[bytes] = Counter()
        self.lost_at = 0
        self.kept: tuple[Copy, Expected] | None = None
        self.number = 0

    def next_number(self) -> int:
        self.number += 1
        return self.number

    # --- claims

    def new_worker(self, count: int) -> tuple[str, str, int]:
        number = self.next_number()
        return f"{number:08x}", f"session{number}", count

    def claimed(self, worker: tuple[str, str, int]) -> Range | None:
        one = self.ask(worker)
        if one is not None:
            self.held.append(one)
        return one

    def ask(self, worker: tuple[str, str, int]) -> Range | None:
        """Claim, and check the answer against what others hold."""
        token, session, count = worker
        latest = self.server.now_ms + LEASE_MS
        for lease in self.queue.leases:
            lease.deadline_ms = min(lease.deadline_ms, latest)
        one = self.calls.claim(token, session, count)
        own = [lease for lease in self.queue.leases if lease.token == token]
        expired = [lease for lease in self.queue.leases if lease.deadline_ms <= self.server.now_ms]
        if one is None:
            if own or expired or self.queue.following < self.queue.tail:
                self.fail("there is work, and a claim finds none")
            return None
        self.check_answer(one)
        if own:
            self.again(one, own[0], latest)
        elif expired:
            self.taken_over(one, expired, latest)
        else:
            self.newly_leased(one, count, latest)
        return one

    def check_answer(self, one: Range) -> None:
        if not one.first < one.end or one.entries != self.queue.part(one.first, one.end):
            self.fail(f"a claim of {one.first}:{one.end} answers with other entries")
        for lease in self.queue.leases:
            lives = lease.deadline_ms > self.server.now_ms and lease.token != one.token
            if lives and lease.first < one.end and one.first < lease.end:
                self.fail(f"{one.first}:{one.end} is given to two workers")

    def again(self, one: Range, lease: Lease, latest: int) -> None:
        if (one.first, one.end) != (lease.first, lease.end) or one.former != lease.former:
            self.fail("a repeated claim has another range")
        if lease.deadline_ms == 0:
            self.take_back(lease)
        if one.failures != lease.failures:
            self.fail("a repeated claim forgets failures of its range, or makes some up")
        lease.deadline_ms, lease.session, lease.epoch = latest, one.session, one.epoch

    def take_back(self, lease: Lease) -> None:
        """What became free meanwhile, of a new epoch or of who took over the other half, is claimed like any other."""
        if not lease.excused:
            lease.failures += 1
            self.failures.update(self.queue.part(lease.first, lease.end))
        lease.excused = False

    def taken_over(self, one: Range, expired: list[Lease], latest: int) -> None:
        # What was given back waits for what ran out, whose holder may be stopped inside a transaction.
        first = [lease for lease in expired if lease.deadline_ms > 0] or expired
        found = [lease for lease in first if lease.first == one.first and one.end <= lease.end]
        if not found:
            self.fail("an expired lease is left behind")
        (lease,) = found
        failures = lease.failures
        if not lease.excused:
            failures += 1
            self.failures.update(self.queue.part(lease.first, lease.end))
        halved = failures >= MAX_FAILURES and lease.end - lease.first > 1
        if one.failures != (MAX_FAILURES - 1 if halved else failures) or halved != (one.end < lease.end):
            self.fail("failures of a range are forgotten or made up")
        if one.failures > min(self.failures[entry] for entry in one.entries):
            self.fail("a range has failed more often than those who held it")
        former, told = lease.former_of_next.split(","), one.former.split(",")
        if told != former[: len(told)] or len(told) < min(len(former), TOLD_SESSIONS):
            self.fail(f"a new holder is told of the sessions {told}, not {former}")
        for session in former[len(told) :]:
            self.store.end(session)
        self.queue.leases.remove(lease)
        if one.end < lease.end:
            rest = lease.epoch, lease.token, one.end, lease.end, 0, NOBODY, one.former
            self.queue.leases.append(Lease(*rest, failures=MAX_FAILURES - 2))
        self.lease(one, latest, lease.alone)

    def newly_leased(self, one: Range, count: int, latest: int) -> None:
        if one.first != self.queue.following or one.end - one.first > count or one.former != NOBODY:
            self.fail(f"a claim has {one.first}:{one.end}, but {self.queue.following} is next")
        self.queue.following = one.end
        self.lease(one, latest)

    def lease(self, one: Range, latest: int, alone: frozenset[str] = frozenset()) -> None:
        names = one.epoch, one.token, one.first, one.end, latest, one.session, one.former
        self.queue.leases.append(Lease(*names, failures=one.failures, alone=alone))

    def lease_of(self, one: Range) -> Lease | None:
        return next((lease for lease in self.queue.leases if lease.covers(one)), None)

    # --- what a worker does with a range

    def carry(self, one: Range, until: str) -> None:
        try:
            if not self.committed(one):
                self.write(one)
                if until == "written":
                    return
                self.store.commit(one.session)
            if until == "acknowledged":
                self.acknowledge(one)
        except (WorkerDiedError, SessionEndedError):
            if one in self.held:
                self.held.remove(one)
        except GuaranteeError:
            self.broken = True
            raise

    def committed(self, one: Range) -> bool:
        return one.session not in self.store.open and all(self.store.has(identity(entry)) for entry in one.entries)

    def write(self, one: Range) -> None:
        if one.session not in self.store.open:
            hopeless = one.suspect and self.is_hopeless(one)
            self.store.end(one.former)
            self.store.begin(one, holds=self.lease_of(one) is not None, hopeless=hopeless)

    def is_hopeless(self, one: Range) -> bool:
        """Whether an entry that is tried alone from now on has failed so too often."""
        lease, failed = self.lease_of(one), self.calls.try_alone(one)
        if lease is None or lease.deadline_ms == 0:
            if failed is not None:
                self.fail("who does not hold an entry tries it alone")
            raise WorkerDiedError
        if failed != len(lease.alone - {one.token}):
            self.fail(f"an entry has failed alone {failed} times, not as {set(lease.alone)}")
        lease.alone |= {one.token}
        return failed >= MAX_FAILURES_ALONE

    def acknowledge(self, one: Range) -> None:
        lease = self.lease_of(one)
        done = self.calls.ack(one, noted(one))
        if done and lease is None:
            self.fail("an acknowledgement of who does not hold the lease is taken")
        if not done and lease is not None and not self.server.losing_replies:
            self.fail("the holder's acknowledgement is refused")
        if lease is not None:
            self.queue.acknowledge(lease)

    def give_back(self, one: Range, *, ended: bool, failed: bool, twice: bool = False) -> None:
        if ended:
            self.store.open.pop(one.session, None)
        lease = self.lease_of(one)
        for _ in range(2 if twice else 1):
            if self.calls.release(one, ended=ended, failed=failed) != (lease is not None):
                self.fail("a range is given back by who does not hold it, or not by its holder")
        if lease is not None and lease.deadline_ms > 0:
            lease.deadline_ms, lease.excused = 0, not failed
            if not failed:
                lease.alone = frozenset()
            if ended:
                lease.session = NOBODY
        if ended and one in self.held:
            self.held.remove(one)
