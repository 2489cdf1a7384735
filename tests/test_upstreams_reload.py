"""The upstreams' file changes under a running process, as a mounted ConfigMap does."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import psutil
import pytest
from openai import APIStatusError, AsyncOpenAI, NotFoundError

from local.children import HOST
from tests.chatting import ask, rest, stream, text_until
from tests.conftest import StartService
from tests.fake_upstream import fake_upstream_in
from tests.running import Part, Service
from tests.talking import asked, release, talk
from tests.test_breaker import metric, samples
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

TWO = "word1 word2"


class ConfigMap:
    """A folder as the kubelet mounts it: files are links into `..data`, a link that is swapped as a whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions: Iterator[int] = iter(range(1000))
        self.key_file = folder / "key"
        self.key_file.write_text("sk-one", encoding="utf-8")
        self.file = folder / "upstreams.toml"
        self.file.symlink_to("..data/upstreams.toml")

    def write(self, text: str) -> None:
        version = self._folder / f"..{next(self._versions)}"
        version.mkdir()
        (version / "upstreams.toml").write_text(text, encoding="utf-8")
        fresh = self._folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.replace(self._folder / "..data")


@pytest.fixture(scope="module")
async def second(anyio_backend: str, folder: Path) -> AsyncIterator[Part]:  # noqa: ARG001 - one event loop for all
    server = fake_upstream_in(folder / "second")
    await server.start()
    yield server
    await server.close()


@pytest.fixture(scope="module")
def mounted(folder: Path) -> ConfigMap:
    place = folder / "mounted"
    place.mkdir()
    return ConfigMap(place)


def told(mounted: ConfigMap, first: Part, models: dict[str, str], more: str = "") -> str:
    """A file with the provider `first` and `models` of it, `default` among them."""
    lines = [
        f'[models.{name}]\ntargets = [{{ provider = "first", model = "{model}" }}]' for name, model in models.items()
    ]
    return f"""
        [providers.first]
        base_url = "http://{HOST}:{first.port}/v1"
        key_file = "{mounted.key_file}"
        retries = 0
        breaker_failures = 1
        breaker_open_seconds = 3600
        [models.default]
        targets = [{{ provider = "first", model = "fake-bench-2" }}]
        {chr(10).join(lines)}
        {more}
    """


def provider(name: str, part: Part) -> str:
    return f'[providers.{name}]\nbase_url = "http://{HOST}:{part.port}/v1"'


@pytest.fixture(scope="module")
async def service(start_service: StartService, upstream: Part, mounted: ConfigMap) -> Service:
    mounted.write(told(mounted, upstream, {}))
    return await start_service(worker=False, UPSTREAMS_FILE=str(mounted.file))


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with talk(service) as one:
        yield one


async def names(client: AsyncOpenAI) -> set[str]:
    return {model.id async for model in client.models.list()}


async def shown(client: AsyncOpenAI, *wanted: str) -> None:
    async def there() -> bool:
        return await names(client) == {"default", *wanted}

    await wait_until(there, f"the models {wanted}")


def connections(service: Service, part: Part) -> int:
    """Of the API's process to this provider."""
    return sum(
        one.status == psutil.CONN_ESTABLISHED and bool(one.raddr) and one.raddr.port == part.port
        for one in psutil.Process(service.api.pid).net_connections("tcp")
    )


async def test_a_change_counts_from_the_next_question_on(
    service: Service, client: AsyncOpenAI, upstream: Part, second: Part, mounted: ConfigMap
) -> None:
    """What runs goes on as it began; then its connections end, if nobody else has them."""
    target = 'targets = [{ provider = "second", model = "fake-hold-reload" }]'
    mounted.write(told(mounted, upstream, {"old": "fake"}, f"{provider('second', second)}\n[models.slow]\n{target}"))
    await shown(client, "old", "slow")
    running = await stream(client, "x", model="slow")
    await text_until(running, 3)
    assert await ask(client, "kept alive", model="default") == TWO
    mounted.write(told(mounted, upstream, {"new": "fake-bench-2"}))
    await shown(client, "new")
    with pytest.raises(NotFoundError):
        await ask(client, "x", model="slow")
    assert await ask(client, "kept alive", model="new") == TWO
    ports = {request["port"] for request in await asked(upstream, "kept alive")}
    assert len(ports) == 1, "a provider that has not changed keeps its connections"
    assert connections(service, second) == 1
    await release(second, "reload")
    text, end = await rest(running)
    assert (text[-6:], end) == ("word32", "response.completed")
    await wait_until(lambda: connections(service, second) == 0, "the end of the old connections")


async def test_a_faulty_file_changes_nothing(
    service: Service, client: AsyncOpenAI, upstream: Part, mounted: ConfigMap
) -> None:
    mounted.write(told(mounted, upstream, {"good": "fake-bench-2"}))
    await shown(client, "good")
    assert await metric(service, "chatbot_upstreams_file_sound") == 1
    faults = '[models.bad]\ntargets = [{ provider = "nobody" }]\n[models.worse]\naliases = ["default"]'
    for number, (text, why) in enumerate(
        [
            (told(mounted, upstream, {}, faults), ["models.bad.targets[0].provider", "models.worse.aliases[0]"]),
            ("[models", ["is not TOML"]),
            (told(mounted, upstream, {}).replace("models.default", "models.other"), ["MODEL='default' is no model"]),
        ],
        1,
    ):
        mounted.write(text)

        def logged(number: int = number) -> list[str]:
            lines = [orjson.loads(line) for line in service.api.log_text().splitlines()]
            found = [line["why"] for line in lines if line["message"].startswith("the upstreams' file is wrong")]
            return found[-1] if len(found) == number else []

        said = "\n".join(await wait_until(logged, "the faults in the log"))
        assert all(words in said for words in why), said
        assert await metric(service, "chatbot_upstreams_file_sound") == 0
        assert await ask(client, "x", model="good") == TWO
    mounted.write(told(mounted, upstream, {"better": "fake-bench-2"}))
    await shown(client, "better")
    assert await metric(service, "chatbot_upstreams_file_sound") == 1


async def test_a_key_is_changed_in_its_file(client: AsyncOpenAI, upstream: Part, mounted: ConfigMap) -> None:
    await ask(client, "first key")
    mounted.key_file.write_text("sk-two", encoding="utf-8")

    async def sent() -> bool:
        await ask(client, "which key")
        return bool((await asked(upstream, "which key"))[-1]["headers"]["authorization"] == "Bearer sk-two")

    await wait_until(sent, "the new key")
    assert (await asked(upstream, "first key"))[-1]["headers"]["authorization"] == "Bearer sk-one"


async def test_what_is_known_of_a_provider_stays_while_it_does(
    service: Service, client: AsyncOpenAI, upstream: Part, second: Part, mounted: ConfigMap
) -> None:
    """Its breaker does; with other settings it begins anew, and one that is gone is in the metrics no more."""
    mounted.write(told(mounted, upstream, {"ill": "fake-500"}, provider("second", second)))
    await shown(client, "ill")
    assert await metric(service, "chatbot_upstream_breaker_state") == 0
    with pytest.raises(APIStatusError, match="500"):
        await ask(client, "x", model="ill")
    mounted.write(told(mounted, upstream, {"ill": "fake-500", "more": "fake-bench-2"}))
    await shown(client, "ill", "more")
    assert await metric(service, "chatbot_upstream_breaker_state", upstream="first") == 2
    with pytest.raises(APIStatusError, match="left alone"):
        await ask(client, "x", model="more")
    mounted.write(told(mounted, upstream, {"more": "fake-bench-2"}).replace("retries = 0", "retries = 1"))
    await shown(client, "more")
    assert await ask(client, "x", model="more") == TWO
    assert await metric(service, "chatbot_upstream_breaker_state", upstream="first") == 0
    assert {one.labels["upstream"] for one in await samples(service, "chatbot_upstream_breaker_state")} == {"first"}
