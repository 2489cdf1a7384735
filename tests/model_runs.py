"""How a model is run: so many examples of so many steps, from a fixed seed, on a server whose disk nobody waits for.

    MODEL_EXAMPLES=10000 MODEL_SEED=7 make test TESTS="tests/test_queue_model.py -k interleaving -s"

tries as many of another seed, and tells how many steps that took. Hypothesis shrinks what breaks a promise to the
shortest sequence of steps that does, and prints it.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis import Redis

from tests.model_server import GuaranteeError, ModelServer
from tests.running import Part

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "100"))
SEED = int(os.environ.get("MODEL_SEED", "1"))
STEPS = 40
CHECKED = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    database=None,
    deadline=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
# Of a broken variant the first counterexample is enough. Each needs fewer examples than this.
BITES = settings(CHECKED, max_examples=2000, phases=(Phase.generate,))


@contextmanager
def model_redis(valkey: Part) -> Iterator[Redis]:
    with Redis(host=valkey.host, port=valkey.port) as client:
        # Nobody reads the file, and each step would wait for the disk.
        client.config_set("appendonly", "no")
        yield client


class Model(RuleBasedStateMachine):
    """What all models have: steps that are counted, replies that get lost, promises that are broken."""

    steps = 0

    def __init__(self, server: ModelServer) -> None:
        super().__init__()
        self.server = server
        self.server.clear()
        self.server.losing_replies = self.server.always_losing
        self.broken = False
        self._lossy_steps = 0

    @rule()
    def lose_replies(self) -> None:
        """Whatever the next step sends, Redis carries out twice: no client hears of the first time."""
        self._lossy_steps = 2

    @invariant()
    def stepped(self) -> None:
        type(self).steps += 1
        self._lossy_steps = max(self._lossy_steps - 1, 0)
        self.server.losing_replies = self.server.always_losing or self._lossy_steps > 0

    def fail(self, message: str) -> NoReturn:
        self.broken = True
        raise GuaranteeError(message)


def check(machine: type[Model]) -> None:
    """Raises GuaranteeError, and prints the steps that lead to it."""
    started = time.monotonic()
    sys.stdout.write(f"\nMODEL_SEED={SEED}: {EXAMPLES} examples, ")
    run_state_machine_as_test(seed(SEED)(machine), settings=CHECKED)
    sys.stdout.write(f"{machine.steps} steps in {time.monotonic() - started:.0f} s, no promise broken\n")


def bite(machine: type[Model]) -> None:
    """Run a broken variant: it must raise GuaranteeError."""
    run_state_machine_as_test(seed(SEED)(machine), settings=BITES)
