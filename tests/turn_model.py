"""A state machine of turns on the real scripts: several pods, takeovers, deletes, evictions, slow loaders.

It knows what each client was told, and compares Redis and PostgreSQL (a model of it) with that after each step.
"""

from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from api.history.steps import LOCK_MS
from core.entry import Entry, parse
from tests.model_runs import Model
from tests.talks import Stored, Talk
from tests.turn_calls import HotCopy, Loaded, Turn, TurnCalls, said

HOUR_MS = 3_600_000
FOR_EVER = -1
# Any of what there is at that moment; hypothesis shrinks it to the oldest.
WHICH = st.integers(0, 9)
NEWEST = st.sampled_from([-1, -1, -1, -2, -3])
HALVES = st.sampled_from([(True, True), (True, False), (False, True)])
# How many talks one example knows at most: each is compared after every step.
TALKS = 3


class TurnModel(Model):
    def __init__(self, calls: TurnCalls) -> None:
        super().__init__(calls.server)
        self.calls = calls
        self.calls.renew()
        self.talks: list[Talk] = []
        self.stored: dict[str, Stored] = {}
        self.turns: list[Turn] = []
        """Each that a pod may go on with, whether or not it still holds the lock."""
        self.handed_over: set[Turn] = set()
        self.ended: dict[Turn, list[str]] = {}
        """What was acknowledged of a turn to its pod."""
        self.loads: list[Loaded] = []
        self.number = 0
        self.create(1)

    def names(self, count: int) -> list[str]:
        self.number += count
        return [f"msg_{self.number - index}" for index in reversed(range(count))]

    def talk_of(self, turn: Turn) -> Talk:
        return next(talk for talk in self.talks if talk.name == turn.conversation)

    # --- conversations

    @precondition(lambda self: len(self.talks) < TALKS)
    @rule(count=st.integers(0, 2))
    def create(self, count: int) -> None:
        talk, names = Talk(f"conv_{len(self.talks)}"), self.names(count)
        self.talks.append(talk)
        self.stored[talk.name] = Stored()
        if self.calls.append(talk.name, names, create=True) != "ok":
            self.fail("a conversation can't be created")
        self.appended(talk, names)

    @precondition(lambda self: self.talks)
    @rule(which=WHICH, count=st.integers(1, 2))
    def append(self, which: int, count: int) -> None:
        talk, names = self.talks[which % len(self.talks)], self.names(count)
        self.expect(talk, "locked" if talk.holder else "ok", self.calls.append(talk.name, names, create=False))
        if not talk.deleted and not talk.holder:
            if not self.calls.hot(talk.name).whole:
                self.load(talk)
                self.expect(talk, "ok", self.calls.append(talk.name, names, create=False))
            self.appended(talk, names)

    def expect(self, talk: Talk, wanted: str, outcome: str) -> None:
        """What is deleted is gone; what is cold is so because it was stored and evicted."""
        if talk.deleted:
            wanted = "gone"
        elif outcome == "cold":
            # Whoever is told so has dropped what was left of it.
            hot = self.calls.hot(talk.name)
            if hot.fields or hot.elements or talk.holder:
                self.fail(f"{talk.name} is cold, but there it is")
            return
        if outcome != wanted:
            self.fail(f"{talk.name}: {outcome}, not {wanted}")

    def appended(self, talk: Talk, names: list[str]) -> None:
        if not names:
            return
        elements = self.calls.hot(talk.name).elements[-len(names) :]
        positions = [int(element.partition(b" ")[0]) for element in elements]
        talk.items += zip(positions, names, strict=False)
        if any(one >= other for (one, _), (other, _) in pairwise(talk.items)):
            self.fail(f"positions of {talk.name} are {talk.items}")

    @precondition(lambda self: any(talk.items for talk in self.talks))
    @rule(which=WHICH, item=WHICH)
    def delete_item(self, which: int, item: int) -> None:
        talks = [talk for talk in self.talks if talk.items]
        talk = talks[which % len(talks)]
        one = talk.items[item % len(talk.items)]
        outcome = self.calls.delete_item(talk.name, one[1])
        self.expect(talk, "locked" if talk.holder else "ok", outcome)
        if outcome == "ok":
            talk.items.remove(one)

    @precondition(lambda self: self.talks)
    @rule(which=WHICH)
    def delete(self, which: int) -> None:
        talk = self.talks[which % len(self.talks)]
        outcome = self.calls.delete(talk.name)
        if outcome == "cold" and not self.calls.hot(talk.name).fields and not talk.deleted:
            return
        self.expect(talk, "ok", outcome)
        talk.deleted, talk.items, talk.holder = True, [], None

    # --- turns

    @precondition(lambda self: self.talks)
    @rule(which=WHICH, answered=st.sampled_from([True, True, False]))
    def begin(self, which: int, answered: bool) -> None:
        talk = self.talks[which % len(self.talks)]
        self.number += 1
        turn = Turn(talk.name, f"resp_{self.number}", f"token{self.number}")
        outcome, history = self.calls.begin(turn)
        if outcome == "cold":
            self.expect(talk, "ok", outcome)
            self.load(talk)
            outcome, history = self.calls.begin(turn)
        wanted = "ok" if not talk.holder else "locked" if talk.deadline_ms > self.server.now_ms else "expired"
        self.expect(talk, wanted, outcome)
        if outcome != "ok":
            return
        talk.holder, talk.deadline_ms = turn, self.server.now_ms + LOCK_MS
        self.turns.append(turn)
        if not answered:
            outcome, history = self.calls.begin(turn)
        if outcome != "ok" or history != [said(name) for _, name in talk.items]:
            self.fail(f"a turn has the history {history}, not {talk.items}")

    def holds(self, turn: Turn) -> bool:
        return self.talk_of(turn).holder == turn

    @precondition(lambda self: self.turns)
    @rule(which=NEWEST)
    def flush(self, which: int) -> None:
        turn = self.turns[which % len(self.turns)]
        talk = self.talk_of(turn)
        outcome = self.calls.flush(turn)
        if outcome != ("gone" if talk.deleted else "ok" if self.holds(turn) else "lost"):
            self.fail(f"a flush of {turn}: {outcome}")
        if self.holds(turn):
            talk.deadline_ms = self.server.now_ms + LOCK_MS

    @precondition(lambda self: self.talks)
    @rule(which=WHICH, count=st.sampled_from([0, 1, 2, 2]))
    def take_turn(self, which: int, count: int) -> None:
        """As nearly all are: begun and finished. Hypothesis leaves out rules by whole examples, `begin` too."""
        before = len(self.turns)
        self.begin(which, answered=True)
        if len(self.turns) > before:
            self.finish(-1, count)

    @precondition(lambda self: self.turns)
    @rule(which=NEWEST, count=st.sampled_from([0, 1, 2, 2]))
    def finish(self, which: int, count: int) -> None:
        """Also again, or of who has lost the lock."""
        turn = self.turns[which % len(self.turns)]
        talk = self.talk_of(turn)
        held, names = self.holds(turn), self.ended.get(turn) or self.names(count)
        outcome = self.calls.finish(turn, names)
        same = turn in self.ended and bool(self.ended[turn]) == bool(names)
        if outcome != ("gone" if talk.deleted else "ok" if held or same else "lost"):
            self.fail(f"an end of {turn}, which {'holds' if held else 'does not hold'} the lock: {outcome}")
        if held:
            talk.holder, self.ended[turn] = None, names
            self.appended(talk, names)

    @rule(which=NEWEST, late=st.booleans(), back=st.sampled_from(["", "flush", "finish", "abandon"]))
    def take_over(self, which: int, late: bool, back: str = "") -> None:
        """`back`: the former pod was only slow, and goes on."""
        if not any(talk.holder for talk in self.talks):
            self.begin(0, answered=True)
        if not self.turns:
            return
        if late:
            self.server.move_clock(LOCK_MS)
        turn = self.turns[which % len(self.turns)]
        talk = self.talk_of(turn)
        self.number += 1
        taken = self.calls.takeover(turn.response, f"token{self.number}")
        mine = talk.holder is not None and talk.holder.response == turn.response
        if taken != (mine and talk.deadline_ms <= self.server.now_ms):
            self.fail(f"a takeover of {turn}: {taken}, {talk.holder} holds the lock")
        if taken:
            talk.holder = Turn(talk.name, turn.response, f"token{self.number}")
            talk.deadline_ms = self.server.now_ms + LOCK_MS
            self.turns.append(talk.holder)
            self.come_back(self.turns.index(turn), back)

    def come_back(self, which: int, how: str) -> None:
        if how == "flush":
            self.flush(which)
        elif how == "finish":
            self.finish(which, 1)
        elif how == "abandon":
            self.abandon(which)

    @precondition(lambda self: self.turns)
    @rule(which=NEWEST)
    def abandon(self, which: int) -> None:
        """By a pod that has not heard of its begin, so it has never handed it over."""
        turn = self.turns[which % len(self.turns)]
        if turn in self.handed_over:
            return
        done = self.calls.abandon(turn)
        if done != (self.holds(turn) and not self.server.losing_replies):
            self.fail(f"{turn} is given back by who does not hold it, or not by its holder")
        if self.holds(turn):
            self.talk_of(turn).holder = None

    @precondition(lambda self: self.turns)
    @rule(which=NEWEST)
    def hand_over(self, which: int) -> None:
        """A pod that ends lets another one go on, which finds nobody with a token."""
        turn = self.turns[which % len(self.turns)]
        self.calls.hand_over(turn)
        self.handed_over.add(turn)
        if self.holds(turn):
            self.talk_of(turn).holder = Turn(turn.conversation, turn.response, "")
            self.talk_of(turn).deadline_ms = 0

    # --- what Redis does not keep

    @precondition(lambda self: self.talks)
    @rule(which=WHICH, half=HALVES, begun=st.booleans())
    def evict(self, which: int, half: tuple[bool, bool], begun: bool) -> None:
        """Tombstones go last: nothing has a longer life. `begun`: somebody finds what is left of it."""
        self.store_all()
        talk = self.talks[which % len(self.talks)]
        if not talk.deleted:
            self.calls.evict(talk.name, half)
        if begun:
            self.begin(which, answered=True)

    @precondition(lambda self: self.talks)
    @rule(which=WHICH, evicted=st.booleans(), overtaken=st.sampled_from(["", "overtaken", "back"]))
    def start_load(self, which: int, evicted: bool, overtaken: str) -> None:
        """PostgreSQL is read at once; the loader comes back whenever it can, also after all has changed again."""
        talk = self.talks[which % len(self.talks)]
        if evicted and not talk.deleted:
            self.store_all()
            self.calls.evict(talk.name, (True, True))
        slow = self.load_of(talk)
        if slow is None:
            return
        self.loads.append(slow)
        if overtaken:
            self.load(talk)
            self.append(self.talks.index(talk), 1)
            self.store_all()
            self.calls.evict(talk.name, (True, True))
            if overtaken == "back":
                self.calls.warm(slow)

    def load_of(self, talk: Talk) -> Loaded | None:
        ticket = self.calls.take_ticket(talk.name)
        stored = self.stored[talk.name]
        if ticket is None or not stored.known or stored.deleted:
            return None
        return Loaded(talk.name, ticket.token, stored.last, stored.bodies)

    @precondition(lambda self: self.loads)
    @rule(which=NEWEST)
    def finish_load(self, which: int) -> None:
        self.calls.warm(self.loads.pop(which % len(self.loads)))

    @precondition(lambda self: self.talks)
    @rule(which=WHICH)
    def load_after_all(self, which: int) -> None:
        """Whoever had the ticket has been too slow."""
        talk = self.talks[which % len(self.talks)]
        if not talk.deleted and not self.calls.hot(talk.name).whole:
            self.load(talk)

    def load(self, talk: Talk) -> None:
        self.calls.ticket_runs_out(talk.name)
        loaded = self.load_of(talk)
        if loaded is not None:
            self.calls.warm(loaded)
        if not self.calls.hot(talk.name).whole:
            self.fail(f"{talk.name} is cold and can't be loaded")

    @rule(milliseconds=st.sampled_from([LOCK_MS, LOCK_MS // 2, -HOUR_MS]))
    def pass_time(self, milliseconds: int) -> None:
        self.server.move_clock(milliseconds)

    # --- the worker

    @rule(count=st.sampled_from([1, 3, 9]))
    def store(self, count: int) -> None:
        lease = self.calls.claim(count)
        if lease is None:
            return
        for entry in map(parse, lease.entries):
            if not self.stored[entry.conversation].take(entry):
                self.fail(f"two items at position {entry.position} of {entry.conversation}")
        if not self.calls.ack(lease) and not self.server.losing_replies:
            self.fail("an acknowledgement is refused")

    def store_all(self) -> None:
        for _ in self.calls.queued():
            self.store(100)

    # --- what must hold

    @invariant()
    def promises_hold(self) -> None:
        queued, running = self.calls.queued(), self.calls.running()
        for talk in self.talks:
            own = [entry for entry in queued if entry.conversation == talk.name]
            hot = self.calls.hot(talk.name)
            if talk.deleted:
                self.tombstone_stands(talk, hot, own)
            else:
                self.history_is_whole(talk, hot, own)
                self.lock_is(talk, hot, running)

    def tombstone_stands(self, talk: Talk, hot: HotCopy, queued: list[Entry]) -> None:
        if hot.fields != {b"deleted": b"1"} or hot.elements:
            self.fail(f"{talk.name} was deleted, and has {hot}")
        if queued and hot.lives_ms[0] != FOR_EVER:
            self.fail(f"{talk.name} was deleted, and its tombstone may go before it is stored")

    def history_is_whole(self, talk: Talk, hot: HotCopy, queued: list[Entry]) -> None:
        unstored = len(queued)
        if hot.whole and hot.elements != talk.elements:
            self.fail(f"readers of {talk.name} have {hot.elements}, not {talk.elements}")
        if not hot.whole and (talk.holder or unstored or self.stored[talk.name].elements != talk.elements):
            self.fail(f"{talk.name} is cold, and neither stored nor free")
        if hot.whole and int(hot.fields[b"unstored"]) != unstored:
            self.fail(f"unstored of {talk.name} is {hot.fields[b'unstored']!r}, not {unstored}")
        may_go = any(life > 0 for life in hot.lives_ms)
        if may_go and (unstored or talk.holder):
            self.fail(f"the hot copy of {talk.name} may go")

    def lock_is(self, talk: Talk, hot: HotCopy, running: set[str]) -> None:
        held = hot.fields.get(b"lock", b"").decode(), hot.fields.get(b"token", b"").decode()
        if held != ((talk.holder.response, talk.holder.token) if talk.holder else ("", "")):
            self.fail(f"{held} holds {talk.name}, not {talk.holder}")
        if talk.holder and talk.holder.response not in running:
            self.fail(f"nobody would take over {talk.holder}")

    def teardown(self) -> None:
        """Every pod dies; another one closes what they have left, and a worker stores all."""
        if self.broken:
            return
        self.server.move_clock(2 * HOUR_MS * 9)
        for turn in [talk.holder for talk in self.talks if talk.holder]:
            self.turns = [turn]
            self.take_over(0, late=False)
            self.finish(-1, 1)
        self.store_all()
        self.promises_hold()
        for talk in self.talks:
            if self.stored[talk.name].elements != talk.elements:
                self.fail(f"{talk.name} is stored as {self.stored[talk.name].elements}, not {talk.elements}")
            if not talk.deleted and FOR_EVER in self.calls.hot(talk.name).lives_ms:
                self.fail(f"the hot copy of {talk.name} lives for ever, though all of it is stored")
        if left := self.calls.running():
            self.fail(f"taken for running at the end: {left}")
