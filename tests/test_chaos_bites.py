"""The fault campaign's judge can see damage: each broken variant of the service is caught, and the real one is not."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.chaos import bites, variants
from tests.chaos.judge import Report, judge
from tests.chaos.said import Damage, Talk
from tests.chaos.stage import Needs, Stage, stage_on
from tests.chaos.variants import Variant
from tests.running import Postgres

pytestmark = pytest.mark.anyio

SEED = 7
Scenario = Callable[[Stage], Awaitable[None]]


async def play(postgres: Postgres, scenario: Callable[..., Awaitable[None]], variant: Variant, needs: Needs) -> Report:
    async with stage_on(postgres, needs, items=0, large=False, seed=SEED) as stage:
        await scenario(stage, **dict(variant.settings))
        api = next(pod for pod in stage.pods if pod.is_api and pod.child.running)
        return await judge(stage, api)


# What the judge says of it: lost, doubled, misordered, resurrected, or complaints.
CASES = [
    (variants.EVERYSEC, bites.power_cut_in_a_slow_sync, "lost"),
    (variants.NOTHING_COMPARED, bites.same_place_twice, "lost"),
    (variants.ACK_OF_ANYBODY, bites.ack_of_another_time, "lost"),
    (variants.POPPED, bites.killed_after_claim, "lost"),
    (variants.LOCK_OF_ANYBODY, bites.stopped_past_its_lock, "complaints"),
    (variants.UNSTORED_DERIVED, bites.stored_out_of_order, "complaints"),
    (variants.COUNTING_FENCE, bites.rewound_to_the_same_number, "lost"),
    (variants.WARM_OF_ANYBODY, bites.stalled_loader, "complaints"),
    (variants.HALF_A_COPY, bites.half_evicted, "complaints"),
]
SOUND = Variant("as it is")


@pytest.mark.parametrize(("variant", "scenario", "seen"), CASES, ids=[case[0].name for case in CASES])
async def test_the_judge_sees(
    postgres: Postgres, tmp_path: Path, variant: Variant, scenario: Scenario, seen: str
) -> None:
    shim = variant is variants.EVERYSEC
    broken = Needs(shim=shim, redis_settings=variant.redis_settings, code=variant.tree_in(tmp_path))
    damaged, sound = await asyncio.gather(
        play(postgres, scenario, variant, broken), play(postgres, scenario, SOUND, Needs(shim=shim))
    )
    assert sound.sound, sound
    found = damaged.complaints if seen == "complaints" else getattr(damaged.damage, seen)
    assert found, damaged


A, B, C, D = "a", "b", "c", "d"


@pytest.mark.parametrize(
    ("found", "kinds"),
    [
        ([A, B], set()),
        ([A, B, C, D], set()),
        ([A], {"lost"}),
        ([A, B, B], {"doubled"}),
        ([B, A], {"misordered"}),
        ([A, B, A], {"doubled"}),
        ([B, A, B], {"doubled", "misordered"}),
        ([A, B, "e"], {"resurrected"}),
        ([A, B, D], {"torn"}),
    ],
)
def test_what_the_judge_calls_damage(found: list[str], kinds: set[str]) -> None:
    """A and B were acknowledged; nobody heard what became of C and D, which one act brought."""
    talk, damage = Talk("conv_1"), Damage()
    talk.hear([A, B])
    talk.doubt([C, D])
    damage.compare(talk, found, dead=set())
    assert {kind for kind, seen in vars(damage).items() if seen} == kinds


def test_what_is_deleted_or_dead_is_not_lost() -> None:
    damage = Damage()
    for deleted, found in ((True, []), (None, []), (None, [A])):
        damage.compare(Talk("conv_1", told=[A], deleted=deleted), found, dead=set())
    damage.compare(Talk("conv_2", told=[A]), [], dead={A})
    assert not damage
    damage.compare(Talk("conv_1", told=[A], deleted=True), [A], dead=set())
    assert damage.resurrected == [A]
