"""Several providers in one file: which of them is asked for a model, and who steps in when it fails."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError
from redis.asyncio import Redis

from api.settings import read_settings
from core.settings import Environment, SettingsError
from local.children import HOST, free_port
from local.parts import ROOT
from tests.chatting import rest, stream
from tests.conftest import StartService
from tests.fake_upstream import fake_upstream_in
from tests.running import Part
from tests.talking import asked, talk
from tests.test_api_process import refused_start

pytestmark = pytest.mark.anyio

KEY, OTHER_KEY = "sk-first", "sk-second"
WORDS = " ".join(f"word{number}" for number in range(1, 33))


@pytest.fixture(scope="module")
async def second(anyio_backend: str, folder: Path) -> AsyncIterator[Part]:  # noqa: ARG001 - one event loop for all
    """Another provider."""
    server = fake_upstream_in(folder / "second")
    await server.start()
    yield server
    await server.close()


def providers(first: Part, second: Part, folder: Path) -> str:
    key_file = folder / "second.key"
    key_file.write_text(OTHER_KEY + "\n", encoding="utf-8")
    return f"""
        [providers.first]
        base_url = "http://{HOST}:{first.port}/v1"
        key_env = "FIRST_KEY"
        retries = 0
        first_token_seconds = 1

        [providers.second]
        base_url = "http://{HOST}:{second.port}/v1/"
        key_file = "{key_file}"

        [providers.away]
        base_url = "http://{HOST}:{free_port()}/v1"
        retries = 0

        [providers.built-in]
        kind = "echo"
    """


@pytest.fixture(scope="module")
async def client(start_service: StartService, upstream: Part, second: Part, folder: Path) -> AsyncIterator[AsyncOpenAI]:
    file = folder / "upstreams.toml"
    failing = "".join(
        f"""
        [models."{name}"]
        targets = [
          {{ provider = "{provider}", model = "fake-{name}" }},
          {{ provider = "second", model = "fake" }},
        ]
        """
        for name, provider in {
            "503": "first", "429": "first", "404": "first", "401": "first", "html": "first", "drop": "first",
            "hang": "first", "unreachable": "away", "400": "first", "context": "first", "reset": "first",
        }.items()
    )  # fmt: skip
    file.write_text(
        providers(upstream, second, folder)
        + f"""
        [models."house/story"]
        targets = [{{ provider = "second", model = "fake-history" }}]
        aliases = ["story", "tale"]
        context_tokens = 8192
        max_output_tokens = 77

        [models.fake]
        targets = [{{ provider = "first" }}]

        [models.nobody]
        targets = [{{ provider = "away" }}, {{ provider = "first", model = "fake-500" }}]

        [models.echo]
        targets = [{{ provider = "built-in" }}]
        {failing}
        """,
        encoding="utf-8",
    )
    service = await start_service(worker=False, UPSTREAMS_FILE=str(file), FIRST_KEY=KEY)
    async with talk(service) as one:
        yield one


@pytest.mark.parametrize("name", ["house/story", "story", "tale"])
async def test_a_model_is_asked_for_where_the_file_says(client: AsyncOpenAI, second: Part, name: str) -> None:
    """And stays the client's own name in the answer."""
    response = await client.responses.create(model=name, input=f"of {name}")
    assert (response.model, response.output_text) == (name, f"user: of {name}")
    [request] = await asked(second, f"of {name}")
    assert (request["body"]["model"], request["body"]["max_tokens"]) == ("fake-history", 77)
    assert request["headers"]["authorization"] == f"Bearer {OTHER_KEY}"


async def test_a_name_of_its_own_is_the_providers_too(client: AsyncOpenAI, upstream: Part) -> None:
    response = await client.responses.create(model="fake", input="same name", max_output_tokens=16)
    assert (response.model, response.output_text) == ("fake", WORDS)
    [request] = await asked(upstream, "same name")
    assert (request["body"]["model"], request["body"]["max_tokens"]) == ("fake", 16)
    assert request["headers"]["authorization"] == f"Bearer {KEY}"


async def test_without_a_name_the_first_model_answers(client: AsyncOpenAI, second: Part) -> None:
    response = await client.responses.create(input="nameless", max_output_tokens=16)
    assert (response.model, response.output_text) == ("house/story", "user: nameless")
    [request] = await asked(second, "nameless")
    assert request["body"]["max_tokens"] == 16


async def test_the_built_in_model_is_a_provider_too(client: AsyncOpenAI) -> None:
    assert (await client.responses.create(model="echo", input="a b c")).output_text == "a b c"
    assert await rest(await stream(client, "a b c", model="echo")) == ("a b c", "response.completed")


@pytest.mark.parametrize("body", [{}, {"stream": True}, {"store": False}, {"store": False, "stream": True}])
async def test_an_unknown_model_begins_nothing(client: AsyncOpenAI, redis: Redis, body: dict[str, bool]) -> None:
    before = {key async for key in redis.scan_iter()}
    for name in ("gpt-4o", "*"):
        with pytest.raises(NotFoundError) as error:
            await client.responses.create(model=name, input="x", extra_body=body)
        assert (error.value.code, error.value.param) == ("model_not_found", "model")
        assert "house/story" in error.value.message
        assert "tale" in error.value.message
    assert not {key async for key in redis.scan_iter()} - before


async def test_the_models_are_those_of_the_file(client: AsyncOpenAI) -> None:
    listed = {model.id: model.owned_by async for model in client.models.list()}
    assert listed.items() >= {"house/story": "second", "tale": "second", "fake": "first", "echo": "built-in"}.items()
    assert "fake-tool" not in listed
    assert (await client.models.retrieve("house/story")).id == "house/story"
    with pytest.raises(NotFoundError):
        await client.models.retrieve("fake-tool")


PASSED_ON = [
    (model, way)
    for way in ("whole", "streamed")
    for model in ("503", "429", "404", "401", "html", "drop", "hang", "unreachable")
    if (model, way) != ("hang", "whole")  # nothing tells it from a model at work, but for its whole time
]


@pytest.mark.parametrize(("model", "way"), PASSED_ON)
async def test_another_provider_steps_in(
    client: AsyncOpenAI, upstream: Part, second: Part, model: str, way: str
) -> None:
    question = f"instead of {model} {way}"
    if way == "whole":
        response = await client.responses.create(model=model, input=question)
        assert (response.model, response.output_text) == (model, WORDS)
    else:
        assert await rest(await stream(client, question, model=model)) == (WORDS, "response.completed")
    assert len(await asked(upstream, question)) == (0 if model == "unreachable" else 1)
    assert [request["body"]["model"] for request in await asked(second, question)] == ["fake"]


@pytest.mark.parametrize("model", ["400", "context"])
async def test_a_faulty_request_is_faulty_everywhere(client: AsyncOpenAI, second: Part, model: str) -> None:
    with pytest.raises(BadRequestError):
        await client.responses.create(model=model, input=f"fault {model}")
    assert not await asked(second, f"fault {model}")


async def test_nobody_steps_in_after_the_first_token(client: AsyncOpenAI, second: Part) -> None:
    assert await rest(await stream(client, "begun", model="reset")) == ("word1 word2 word3 ", "response.failed")
    assert not await asked(second, "begun")


async def test_the_first_failure_is_told_when_nobody_is_left(client: AsyncOpenAI) -> None:
    with pytest.raises(APIStatusError, match="can't be reached") as error:
        await client.responses.create(model="nobody", input="x")
    assert (error.value.status_code, error.value.code) == (502, "upstream_error")


async def test_any_other_name_may_be_passed_on(
    start_service: StartService, upstream: Part, second: Part, folder: Path
) -> None:
    """To the targets of `*`; one of them that is down does not break the list of models."""
    file = folder / "any.toml"
    file.write_text(
        providers(upstream, second, folder)
        + """
        [models.own]
        targets = [{ provider = "second", model = "fake-history" }]
        [models."*"]
        targets = [{ provider = "away" }, { provider = "first" }]
        """,
        encoding="utf-8",
    )
    service = await start_service(worker=False, UPSTREAMS_FILE=str(file), FIRST_KEY=KEY, MODEL="fake")
    async with talk(service) as client:
        assert (await client.responses.create(input="x")).output_text == WORDS
        assert (await client.responses.create(model="fake-bench-2", input="x")).output_text == "word1 word2"
        assert (await client.responses.create(model="own", input="x")).output_text == "user: x"
        owners = {model.id: model.owned_by async for model in client.models.list()}
        assert owners == {"own": "second", "fake": "first", "fake-tool": "first"}


def test_every_fault_of_the_file_is_told_with_its_place(folder: Path) -> None:
    file, key_file = folder / "faulty.toml", folder / "empty.key"
    key_file.write_text("\n", encoding="utf-8")
    file.write_text(
        f"""
        default = "a"
        [providers.first]
        kind = "grpc"
        [providers.second]
        base_url = "localhost:8000"
        key = "sk-in-the-wrong-place"
        [providers.third]
        base_url = "ftp://localhost"
        key_env = "NOT_SET"
        key_file = "{key_file}"
        connect_seconds = 0
        [providers.fourth]
        base_url = "https://user:sk-hidden@models.example/v1"
        key_file = "{key_file}"
        [providers.fifth]
        kind = "echo"
        key_env = "sk-in-the-wrong-place"
        [providers."six th"]
        kind = "echo"
        [models.a]
        targets = [{{ provider = "first" }}, {{ provider = "sixth" }}, {{ model = "x" }}]
        [models.b]
        targets = []
        [models.c]
        targets = [{{ provider = "first" }}]
        aliases = ["b", "d", "c", "*"]
        context_tokens = "many"
        [models.e]
        targets = [{{ provider = "sixth" }}]
        aliases = ["e", "*", "same", "same"]
        """,
        encoding="utf-8",
    )
    said = refused_start(UPSTREAMS_FILE=str(file), AUTH="none", OPENAI_BASE_URL="http://localhost", PORT="x")
    assert "sk-" not in said
    lines = [line.removeprefix(f"  UPSTREAMS_FILE={file}: ") for line in said.splitlines()[1:]]
    assert sorted(lines) == sorted(
        [
            "  OPENAI_BASE_URL and UPSTREAMS_FILE are both set: name that server in the file",
            "  PORT='x' must be a whole number from 1 to 65535",
            "default is unknown here; the file has the tables 'providers' and 'models'",
            "providers.first.kind should be 'chat_completions', 'responses' or 'echo'",
            "providers.first.base_url must be the provider's URL, such as https://api.openai.com/v1",
            "providers.second.key is unknown here",
            "providers.second.base_url must be the provider's URL, such as https://api.openai.com/v1",
            "providers.third.connect_seconds should be greater than or equal to 0.1",
            "providers.third.base_url must be the provider's URL, such as https://api.openai.com/v1",
            "providers.third has both key_env and key_file: say one of them",
            "providers.fourth.base_url must hold no password, query or fragment; key_env or key_file names the key",
            "providers.fourth.key_file names a file that is empty",
            "providers.fifth.key_env is not for the kind 'echo', which is built in",
            "providers.fifth.key_env names a setting that is not set",
            "providers.six th must be a name of up to 64 letters, digits, '.', '_' and '-'",
            "models.a.targets[2].provider must be one of first, second, third, fourth, fifth, six th",
            "models.b.targets must name one provider at least",
            "models.c.context_tokens should be a valid integer",
            "models.c.aliases[0] 'b' is the name of a model already",
            "models.c.aliases[2] 'c' is the name of a model already",
            "models.c.aliases[3] can't be: '*' stands for every other name already",
            "models.a.targets[1].provider must be one of first, second, third, fourth, fifth, six th",
            "models.e.targets[0].provider must be one of first, second, third, fourth, fifth, six th",
            "models.e.aliases[0] 'e' is the name of a model already",
            "models.e.aliases[1] can't be: '*' stands for every other name already",
            "models.e.aliases[3] 'same' is the name of an alias of e already",
        ]
    )


def faults(**settings: str) -> list[str]:
    """What a start would say, line by line; the test before this one has seen a whole process say it."""
    with pytest.raises(SettingsError) as error:
        read_settings(Environment({"AUTH": "none", **settings}))
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "can't be read: FileNotFoundError"),
        ("[providers", "is not TOML: Expected ']' at the end of a table declaration (at end of document)"),
        ("", ": providers is missing: at least one table [providers.NAME]"),
    ],
)
def test_a_file_that_is_none(folder: Path, content: str | None, told: str) -> None:
    file = folder / "none.toml"
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_text(content, encoding="utf-8")
    assert f"UPSTREAMS_FILE={file}{told if told.startswith(':') else ' ' + told}" in faults(UPSTREAMS_FILE=str(file))


def test_the_default_model_must_be_there(folder: Path) -> None:
    file = folder / "echo.toml"
    file.write_text('providers.e.kind = "echo"\nmodels.echo.targets = [{ provider = "e" }]\n', encoding="utf-8")
    assert faults(UPSTREAMS_FILE=str(file), MODEL="gpt-4o") == [
        "MODEL='gpt-4o' is no model of UPSTREAMS_FILE: requests that name no model are answered by it"
    ]


def test_the_example_of_the_documentation_is_sound(folder: Path) -> None:
    """Nothing of it is faulty, so the start only fails for what else is wrong."""
    text = (ROOT / "docs" / "upstreams.md").read_text(encoding="utf-8")
    example = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    key_file, file = folder / "documented.key", folder / "documented.toml"
    key_file.write_text("sk", encoding="utf-8")
    file.write_text(example.replace("/run/secrets/vllm-key", str(key_file)), encoding="utf-8")
    said = faults(UPSTREAMS_FILE=str(file), OPENAI_API_KEY="sk", PORT="x")
    assert said == ["PORT='x' must be a whole number from 1 to 65535"]
    assert "[providers.house]" in example
