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
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from redis import Redis

from tests.model_server import GuaranteeError
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
    """What each model does after a step is to count it, and to say which promise was broken."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.broken = False

    def stepped(self) -> None:
        type(self).steps += 1

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
