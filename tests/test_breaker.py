"""Providers that are ill or busy: who waits for them, who is sent on, and what an operator sees of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import APIStatusError, APITimeoutError, AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from local.children import HOST
from tests.chatting import ask, rest, stream, text_until
from tests.conftest import StartService
from tests.fake_upstream import fake_upstream_in
from tests.running import Part, Service
from tests.talking import asked, release, talk
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

CLOSED, HALF_OPEN, OPEN = 0, 1, 2
TWO = "word1 word2"
PROVIDERS = {
    "dying": "breaker_failures = 3\nbreaker_open_seconds = 0.5",
    "trying": "breaker_failures = 1\nbreaker_open_seconds = 2",
    "idle": "breaker_failures = 1\nbreaker_open_seconds = 1",
    "left": "breaker_failures = 1\nbreaker_open_seconds = 0.5",
    "asleep": "breaker_failures = 1\nbreaker_open_seconds = 60",
    "cutting": "breaker_failures = 2\nbreaker_open_seconds = 60",
    "repeating": "breaker_failures = 2\nbreaker_open_seconds = 60\nretries = 5",
    "choosy": "breaker_failures = 2\nbreaker_open_seconds = 60",
    "never": "breaker_failures = 0",
    "narrow": "concurrent_requests = 1\nwait_seconds = 0.1",
    "patient": "concurrent_requests = 1\nwait_seconds = 20",
    "steady": "",
}


MODELS = ("bench-2", "500", "429", "400", "401", "cut", "hang", "hold-narrow", "hold-patient", "hold-left")


@pytest.fixture(scope="module")
async def dying(anyio_backend: str, folder: Path) -> AsyncIterator[Part]:  # noqa: ARG001 - one event loop for all
    """A provider that is killed and comes back."""
    server = fake_upstream_in(folder / "dying")
    await server.start()
    yield server
    await server.close()


@pytest.fixture(scope="module")
async def service(start_service: StartService, upstream: Part, dying: Part, folder: Path) -> Service:
    """Each provider has the models PROVIDER/X, which it calls fake-X, and PROVIDER+/X, where `steady` steps in."""
    lines = []
    for name, more in PROVIDERS.items():
        port = dying.port if name == "dying" else upstream.port
        retries = "" if "retries" in more else "retries = 0"
        lines += [f'[providers.{name}]\nbase_url = "http://{HOST}:{port}/v1"\n{retries}\n{more}']
        for model in MODELS:
            target = f'{{ provider = "{name}", model = "fake-{model}" }}'
            other = '{ provider = "steady", model = "fake-bench-2" }'
            lines += [f'[models."{name}/{model}"]\ntargets = [{target}]']
            lines += [f'[models."{name}+/{model}"]\ntargets = [{target}, {other}]']
        ill = '{ provider = "never", model = "fake-500" }'
        lines += [f'[models."500+/{name}"]\ntargets = [{ill}, {{ provider = "{name}" }}]']
    file = folder / "breakers.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    return await start_service(worker=False, UPSTREAMS_FILE=str(file))


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(service) as one:
        yield one


async def samples(service: Service, name: str) -> list[Sample]:
    async with aiohttp.ClientSession() as session, session.get(service.metrics_url) as answer:
        families = list(text_string_to_metric_families(await answer.text()))
    return [sample for family in families for sample in family.samples if sample.name == name]


async def metric(service: Service, name: str, **labels: str) -> float:
    return sum(one.value for one in await samples(service, name) if labels.items() <= one.labels.items())


async def breaker(service: Service, upstream: str) -> float:
    return await metric(service, "chatbot_upstream_breaker_state", upstream=upstream)


async def refused(client: AsyncOpenAI, model: str) -> tuple[int, str | None, int]:
    """Status, code and the seconds to wait."""
    with pytest.raises(APIStatusError) as error:
        await client.responses.create(model=model, input="x", store=False)
    headers: Any = error.value.response.headers
    return error.value.status_code, error.value.code, int(headers.get("retry-after", 0))


async def test_an_ill_provider_is_left_alone_until_it_is_well(
    service: Service, client: AsyncOpenAI, dying: Part
) -> None:
    assert await ask(client, "x", model="dying/bench-2") == TWO
    await dying.kill()
    for _ in range(3):
        assert await ask(client, "x", model="dying+/bench-2") == TWO
    assert await metric(service, "chatbot_upstream_errors_total", upstream="dying", kind="upstream_error") == 3
    assert await metric(service, "chatbot_upstream_fallbacks_total", upstream="dying") == 3
    status, code, seconds = await refused(client, "dying/bench-2")
    assert (status, code) in {(503, "upstream_unavailable"), (502, "upstream_error")}  # after half a second one may try
    assert code == "upstream_error" or seconds == 1
    assert await breaker(service, "dying") in {OPEN, HALF_OPEN}
    assert await ask(client, "x", model="dying+/bench-2") == TWO
    await dying.start()

    async def well() -> bool:
        try:
            return await ask(client, "x", model="dying/bench-2") == TWO
        except APIStatusError as error:
            if error.code != "upstream_unavailable":
                raise
            return False

    await wait_until(well, "the provider to be asked again")
    assert await breaker(service, "dying") == CLOSED


async def test_while_one_question_tries_it_nobody_else_does(service: Service, client: AsyncOpenAI) -> None:
    """And when that fails too, it is left alone again."""
    assert await refused(client, "trying/500") == (502, "upstream_error", 0)
    assert await refused(client, "trying/500") == (503, "upstream_unavailable", 2)
    sent = await metric(service, "chatbot_upstream_attempts_total", upstream="trying")

    async def tried() -> bool:
        answers = await asyncio.gather(*(refused(client, "trying/500") for _ in range(5)))
        codes = sorted(code or "" for _, code, _ in answers)
        assert codes in (["upstream_unavailable"] * 5, ["upstream_error"] + ["upstream_unavailable"] * 4)
        return codes[0] == "upstream_error"

    await wait_until(tried, "the trial")
    assert await metric(service, "chatbot_upstream_attempts_total", upstream="trying") == sent + 1
    assert await breaker(service, "trying") == OPEN


async def test_failures_are_counted_from_0_on(service: Service) -> None:
    """Else Prometheus would see no increase with the first one."""
    for name in ("errors", "retries", "fallbacks"):
        found = [
            one.value
            for one in await samples(service, f"chatbot_upstream_{name}_total")
            if "patient" in one.labels.values()
        ]
        assert set(found) == {0}, name


async def test_a_provider_that_nobody_asks_is_not_told_as_open_for_ever(service: Service, client: AsyncOpenAI) -> None:
    await refused(client, "idle/500")
    assert await breaker(service, "idle") == OPEN

    async def may_be_tried() -> bool:
        return await breaker(service, "idle") == HALF_OPEN

    await wait_until(may_be_tried, "the end of its pause")


async def test_a_trial_that_nobody_waited_for_is_made_again(service: Service, client: AsyncOpenAI) -> None:
    await refused(client, "left/500")

    async def tried_in_vain() -> bool:
        try:
            await client.responses.create(model="left/hang", input="x", store=False, timeout=0.3)
        except APITimeoutError:
            return True
        except APIStatusError as error:
            if error.code != "upstream_unavailable":
                raise
        return False

    await wait_until(tried_in_vain, "a trial")
    assert await breaker(service, "left") == HALF_OPEN

    async def well() -> bool:
        return await ask(client, "x", model="left+/bench-2") == TWO and await breaker(service, "left") == CLOSED

    await wait_until(well, "the next trial")


async def test_answers_that_are_cut_are_failures(service: Service, client: AsyncOpenAI, upstream: Part) -> None:
    for _ in range(2):
        text, end = await rest(await stream(client, "cutting", model="cutting+/cut"))
        assert (text, end) == ("word1 word2 word3 ", "response.failed")
    assert await breaker(service, "cutting") == OPEN
    assert await rest(await stream(client, "cutting", model="cutting+/cut")) == (TWO, "response.completed")
    assert [one["body"]["model"] for one in await asked(upstream, "cutting")] == ["fake-cut"] * 2 + ["fake-bench-2"]


async def test_the_first_failure_comes_with_the_soonest_time(client: AsyncOpenAI) -> None:
    """Of those that are left alone: nobody else can answer before."""
    await refused(client, "asleep/500")
    status, code, seconds = await refused(client, "500+/asleep")
    assert (status, code) == (502, "upstream_error")
    assert 50 <= seconds <= 60


async def test_a_question_is_not_repeated_to_who_is_left_alone(service: Service, client: AsyncOpenAI) -> None:
    assert (await refused(client, "repeating/500"))[:2] == (502, "upstream_error")
    assert await metric(service, "chatbot_upstream_attempts_total", upstream="repeating") == 2
    assert await metric(service, "chatbot_upstream_retries_total", upstream="repeating") == 1
    assert (await refused(client, "repeating/500"))[:2] == (503, "upstream_unavailable")


async def test_who_answers_is_not_ill(service: Service, client: AsyncOpenAI) -> None:
    """With a refusal of the request, of the key or for its rate; nor who fails now and then, nor without a breaker."""
    for model in ("400", "429", "401"):
        for _ in range(3):
            await refused(client, f"choosy/{model}")
    for _ in range(3):
        await refused(client, "choosy/500")
        assert await ask(client, "x", model="choosy/bench-2") == TWO
    for _ in range(6):
        assert (await refused(client, "never/500"))[:2] == (502, "upstream_error")
    assert await breaker(service, "choosy") == CLOSED
    assert await breaker(service, "never") == CLOSED


async def test_only_so_many_questions_at_a_time(client: AsyncOpenAI, upstream: Part) -> None:
    running = await stream(client, "x", model="narrow/hold-narrow")
    await text_until(running, 3)
    assert await refused(client, "narrow/bench-2") == (503, "upstream_busy", 1)
    assert await ask(client, "x", model="narrow+/bench-2") == TWO
    await release(upstream, "narrow")
    assert (await rest(running))[1] == "response.completed"
    assert await ask(client, "x", model="narrow/bench-2") == TWO
    assert (await refused(client, "narrow/400"))[0] == 400
    assert (await rest(await stream(client, "x", model="narrow/400")))[1] == "response.failed"
    assert await ask(client, "x", model="narrow/bench-2") == TWO


async def test_a_question_waits_a_little_for_its_turn(service: Service, client: AsyncOpenAI, upstream: Part) -> None:
    running = await stream(client, "x", model="patient/hold-patient")
    await text_until(running, 3)
    waiting = await stream(client, "waiting", model="patient/bench-2")
    assert (await anext(waiting)).type == "response.created"
    assert await metric(service, "chatbot_upstream_attempts_total", upstream="patient") == 1
    await release(upstream, "patient")
    assert await rest(waiting) == (TWO, "response.completed")
    assert (await rest(running))[1] == "response.completed"


async def test_who_leaves_gives_the_place_back(client: AsyncOpenAI) -> None:
    left = await stream(client, "x", model="narrow/hold-left", store=False)
    await text_until(left, 3)
    await left.close()

    async def free() -> bool:
        try:
            return await ask(client, "x", model="narrow/bench-2") == TWO
        except APIStatusError:
            return False

    await wait_until(free, "the place")
