"""Redis and PostgreSQL as the chart runs them, what is left with external ones, and the migration between."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from api.settings import read_settings
from chart.code import settings_environment
from chart.rendering import (
    FULLNAME,
    VALUE_SETS,
    Object,
    Rendered,
    at,
    containers,
    environment,
    example,
    labels,
    merged,
    refusal,
    render,
    title,
)
from chart.test_pods import number_of_bytes
from core.durability import verify
from core.queue import HOT, QUEUE
from core.settings import Environment, postgres_settings, redis_settings
from local.children import HOST, Child, free_port, spawn, wait_ready
from local.embedded import VALKEY_SERVER

PINNED = re.compile(r"[a-z0-9./_-]+:[A-Za-z0-9._-]+(@sha256:[0-9a-f]{64})?|[a-z0-9./_-]+@sha256:[0-9a-f]{64}")
DIGEST = "sha256:" + "0123456789abcdef" * 4
KEDA = at("worker.keda.enabled", True)
PASSWORD, KEDA_PASSWORD = "Secret0", "Secret1"
START_SECONDS = 10.0
EXTERNAL_REDIS: Object = {
    "redis": {
        "enabled": False,
        "external": {
            "host": "redis.example.org",
            "port": 6390,
            "username": "chat",
            "existingSecret": "mine",
            "existingSecretKey": "there",
            "appendfsync": "everysec",
            "tls": {"enabled": True, "caSecret": "redis-ca"},
        },
    }
}
EXTERNAL_POSTGRESQL: Object = {
    "postgresql": {
        "enabled": False,
        "external": {
            "host": "pg.example.org",
            "port": 5433,
            "user": "chat",
            "database": "chats",
            "existingSecret": "yours",
            "existingSecretKey": "here",
            "tls": {"mode": "verify-full", "caSecret": "pg-ca", "caSecretKey": "root.pem"},
        },
    }
}


def configuration(rendered: Rendered) -> str:
    text: str = rendered.one("ConfigMap", "redis")["data"]["redis.conf"]
    return text


@dataclass
class Charted:
    """A server that runs as the chart's Redis does: by its command, with its file, in other folders."""

    child: Child
    port: int

    def client(self, username: str | None = None, password: str | None = None) -> Redis:
        return Redis(host=HOST, port=self.port, username=username, password=password, retry=Retry(NoBackoff(), 0))


@pytest.fixture(scope="module")
async def charted(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Charted]:  # noqa: ARG001 - one event loop for all
    folder = tmp_path_factory.mktemp("redis")
    rendered = render(KEDA)
    port = free_port()
    places = {"/etc/redis": folder / "etc", "/run/redis": folder / "run", "/data": folder / "data"}

    def moved(text: str) -> str:
        for path, here in places.items():
            text = re.sub(rf"(?<![\w/]){path}\b", str(here), text)
        return text

    for here in (*places.values(), folder / "bin"):
        here.mkdir()
    (folder / "bin" / "redis-server").symlink_to(VALKEY_SERVER)
    text = f"{moved(configuration(rendered))}\nport {port}\nbind {HOST}\n"
    (folder / "etc" / "redis.conf").write_text(text, encoding="utf-8")
    (container,) = rendered.pod("redis")["spec"]["containers"]
    command = [moved(word) for word in (*container["command"], *container.get("args", []))]
    variables = {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
        "REDISCLI_AUTH": PASSWORD,
        "KEDA_REDIS_PASSWORD": KEDA_PASSWORD,
    }
    assert variables.keys() - {"PATH"} == environment(container).keys()
    child = await spawn("redis", command, folder, environment=variables, cwd=folder)
    server = Charted(child, port)

    async def ready(_: Child) -> bool:
        async with server.client(password=PASSWORD) as client:
            try:
                return bool(await client.ping())
            except (RedisError, OSError):
                return False

    await wait_ready(child, ready, START_SECONDS)
    yield server
    await child.kill()


async def test_redis_is_set_as_the_promises_need_it(charted: Charted) -> None:
    async with charted.client(password=PASSWORD) as client:
        assert await verify(client, "always") == []


@pytest.mark.parametrize(("limit", "percent"), [("1Gi", 65), ("1500Mi", 60), ("4G", 70), (1073741824, 65)])
def test_redis_leaves_memory_for_copies_while_it_rewrites_its_file(limit: str | int, percent: int) -> None:
    rendered = render({"redis": {"maxmemoryPercent": percent, "resources": {"limits": {"memory": limit}}}})
    found = re.search(r"^maxmemory (\d+)$", configuration(rendered), re.MULTILINE)
    assert found
    assert int(found[1]) == pytest.approx(number_of_bytes(str(limit)) * percent / 100, abs=1)
    (container,) = containers(rendered.pod("redis"))
    assert container["resources"]["limits"]["memory"] == limit


@pytest.mark.parametrize("limit", ["128Mi", "1Gi", "16Gi"])
def test_new_turns_are_refused_before_the_queue_fills_redis(limit: str) -> None:
    """An entry takes about 1 KB; Redis would throw out every conversation first, which only it may have."""
    rendered = render(at("redis.resources.limits.memory", limit))
    found = re.search(r"^maxmemory (\d+)$", configuration(rendered), re.MULTILINE)
    assert found
    assert 0.5 < queue_limit(rendered) * 1024 / int(found[1]) < 0.8


def test_who_knows_better_says_how_long_the_queue_may_be() -> None:
    assert queue_limit(render(at("api.queueLimit", 5000))) == 5000
    assert queue_limit(render({"redis": {"enabled": False, "external": {"host": "redis.example.org"}}})) == 1_000_000


def queue_limit(rendered: Rendered) -> int:
    return read_settings(Environment(settings_environment(rendered, rendered.pod("api")))).queue_limit


@pytest.mark.parametrize("percent", [0, 59, 71, 100])
def test_a_maxmemory_that_breaks_the_promises_is_refused(percent: int) -> None:
    assert "maxmemoryPercent" in refusal(at("redis.maxmemoryPercent", percent))


async def test_redis_asks_for_its_password(charted: Charted) -> None:
    for password in (None, "wrong"):
        async with charted.client(password=password) as client:
            with pytest.raises((AuthenticationError, NoPermissionError)):
                await client.ping()


async def test_kedas_user_may_look_at_the_queue_and_nothing_else(charted: Charted) -> None:
    async with charted.client(password=PASSWORD) as owner:
        await owner.rpush(QUEUE, "entry")
        await owner.set("conversation", "text")
    async with charted.client("keda", KEDA_PASSWORD) as keda:
        assert await keda.ping()
        # What KEDA's scaler sends: a script that asks for the type of the key, and then for its length.
        script = "if redis.call('type', KEYS[1]).ok == 'list' then return redis.call('llen', KEYS[1]) end return 0"
        assert await keda.eval(script, 1, QUEUE) == 1
        assert await keda.llen(HOT) == 0
        for command in (
            ["GET", "conversation"],
            ["LRANGE", QUEUE, 0, -1],
            ["DEL", QUEUE],
            ["CONFIG", "GET", "*"],
            ["FLUSHALL"],
            ["LLEN", "other"],
        ):
            with pytest.raises(NoPermissionError):
                await keda.execute_command(*command)  # type: ignore[no-untyped-call]  # of redis-py


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_image_is_pinned(name: str) -> None:
    images = {(owner, container["image"]) for owner, pod in example(name).pods() for container in containers(pod)}
    assert [image for image in images if not PINNED.fullmatch(image[1]) or image[1].endswith(":latest")] == []


IMAGES = ("api", "worker", "redis", "postgresql")


@pytest.mark.parametrize("component", IMAGES)
@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({"repository": "reg.example.org/x", "tag": "1"}, "reg.example.org/x:1"),
        ({"repository": "reg.example.org/x", "tag": f"1@{DIGEST}"}, f"reg.example.org/x:1@{DIGEST}"),
        ({"repository": "reg.example.org/x", "tag": "1", "digest": DIGEST}, f"reg.example.org/x:1@{DIGEST}"),
    ],
)
def test_an_image_is_named_by_tag_and_digest(component: str, values: Object, image: str) -> None:
    (container,) = containers(render(at(f"{component}.image", values)).pod(component))
    assert container["image"] == image


def test_images_of_the_stores_are_those_that_were_tested() -> None:
    rendered = render()
    images = {component: containers(rendered.pod(component))[0]["image"] for component in ("redis", "postgresql")}
    assert images == {"redis": "docker.io/library/redis:8.0", "postgresql": "docker.io/library/postgres:17-trixie"}


@pytest.mark.parametrize("component", ["redis", "postgresql"])
def test_a_store_keeps_its_data_on_a_volume_of_its_own(component: str) -> None:
    rendered = render(at(f"{component}.persistence", {"size": "7Gi", "storageClass": "fast"}))
    found = rendered.one("StatefulSet", component)
    assert found["spec"]["replicas"] == 1
    (claim,) = found["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "7Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    (container,) = containers(pod_template(found))
    assert claim["metadata"]["name"] in {mount["name"] for mount in container["volumeMounts"]}
    # Uninstalling keeps what people have written.
    retention = found["spec"].get("persistentVolumeClaimRetentionPolicy", {})
    assert set(retention.values()) <= {"Retain"}
    assert "storageClassName" not in render().one("StatefulSet", component)["spec"]["volumeClaimTemplates"][0]["spec"]


@pytest.mark.parametrize("component", ["redis", "postgresql"])
def test_a_stores_pod_that_never_becomes_ready_is_replaced(component: str) -> None:
    """By a rollback, or by an upgrade that mends it: in order, Kubernetes would wait for the broken one first."""
    assert render().one("StatefulSet", component)["spec"]["podManagementPolicy"] == "Parallel"


def pod_template(found: Object) -> Object:
    template: Object = found["spec"]["template"]
    return template


def test_postgresql_keeps_its_data_in_a_folder_of_the_volume() -> None:
    (container,) = containers(render().pod("postgresql"))
    (mount,) = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "data")
    assert environment(container)["PGDATA"]["value"].startswith(f"{mount}/")


@pytest.mark.parametrize(("values", "component"), [(EXTERNAL_REDIS, "redis"), (EXTERNAL_POSTGRESQL, "postgresql")])
def test_an_external_store_leaves_no_object_of_the_bundled_one(values: Object, component: str) -> None:
    rendered = render(values, KEDA)
    assert [
        title(found) for found in rendered.objects if labels(found).get("app.kubernetes.io/component") == component
    ] == []
    assert [title(found) for found in rendered.objects if found["metadata"]["name"].endswith(f"-{component}")] == []
    assert f"{component}-password" not in (rendered.of("Secret") or [{}])[0].get("data", {})


def test_with_both_stores_outside_nothing_is_stateful() -> None:
    rendered = render(EXTERNAL_REDIS, EXTERNAL_POSTGRESQL)
    assert rendered.of("StatefulSet") + rendered.of("PersistentVolumeClaim") == []


@pytest.mark.parametrize("component", ["api", "worker", "migrate"])
def test_every_process_reaches_the_bundled_stores(component: str) -> None:
    rendered = render()
    variables = Environment(settings_environment(rendered, rendered.pod(component)))
    redis, postgres = redis_settings(variables), postgres_settings(variables)
    assert (postgres.host, postgres.port, postgres.user, postgres.database) == (
        f"{FULLNAME}-postgresql",
        5432,
        "chatbot",
        "chatbot",
    )
    assert (redis.host, redis.port, redis.tls) == (f"{FULLNAME}-redis", 6379, None) or component == "migrate"
    services = {found["metadata"]["name"] for found in rendered.of("Service")}
    assert {f"{FULLNAME}-redis", f"{FULLNAME}-postgresql"} <= services


@pytest.mark.parametrize("component", ["api", "worker"])
def test_every_process_reaches_external_stores_with_tls(component: str) -> None:
    rendered = render(EXTERNAL_REDIS, EXTERNAL_POSTGRESQL)
    pod = rendered.pod(component)
    (container,) = containers(pod)
    variables = environment(container)
    seen = {name: entry["value"] for name, entry in variables.items() if "value" in entry}
    wanted = {
        "REDIS_HOST": "redis.example.org",
        "REDIS_PORT": "6390",
        "REDIS_USERNAME": "chat",
        "REDIS_TLS": "true",
        "REDIS_APPENDFSYNC": "everysec",
        "PG_HOST": "pg.example.org",
        "PG_PORT": "5433",
        "PG_USER": "chat",
        "PG_DATABASE": "chats",
        "PG_TLS": "verify-full",
    }
    assert merged(seen, wanted) == seen
    assert variables["REDIS_PASSWORD"]["valueFrom"]["secretKeyRef"] == {"name": "mine", "key": "there"}
    assert variables["PG_PASSWORD"]["valueFrom"]["secretKeyRef"] == {"name": "yours", "key": "here"}
    assert mounted_secret(pod, seen["REDIS_TLS_CA_FILE"]) == ("redis-ca", "ca.crt")
    assert mounted_secret(pod, seen["PG_TLS_CA_FILE"]) == ("pg-ca", "root.pem")


def mounted_secret(pod: Object, file: str) -> tuple[str, str]:
    """The Secret and the key in it that a file in the pod's container is."""
    (container,) = containers(pod)
    path = Path(file)
    (mount,) = (mount for mount in container["volumeMounts"] if mount["mountPath"] == str(path.parent))
    assert mount.get("readOnly") is True
    (volume,) = (volume["secret"] for volume in pod["spec"]["volumes"] if volume["name"] == mount["name"])
    keys = {item["path"]: item["key"] for item in volume.get("items", [])} or {path.name: path.name}
    return volume["secretName"], keys[path.name]


def job(*values: Object, revision: int = 1) -> Object:
    return render(*values, revision=revision).one("Job", "migrate")


def test_the_migration_is_a_plain_job_with_a_hash_in_its_name() -> None:
    found = job()
    assert not any(key.startswith("helm.sh/hook") for key in found["metadata"].get("annotations") or {})
    assert re.fullmatch(rf"{FULLNAME}-migrate-[0-9a-f]{{6,10}}", found["metadata"]["name"])
    assert pod_template(found)["spec"]["restartPolicy"] in ("Never", "OnFailure")


def test_the_same_migration_has_the_same_name_at_every_revision() -> None:
    assert job(revision=7) == job()


@pytest.mark.parametrize(
    "values",
    [
        at("worker.image.tag", "2.0"),
        at("migration.resources.limits.memory", "512Mi"),
        at("postgresql.user", "other"),
        at("migration.podAnnotations", {"a": "b"}),
        at("imagePullSecrets", ["registry"]),
        EXTERNAL_POSTGRESQL,
    ],
)
def test_another_pod_of_the_migration_is_another_job(values: Object) -> None:
    """Kubernetes refuses any change of a Job's pods."""
    assert pod_template(job(values)) != pod_template(job())
    assert job(values)["metadata"]["name"] != job()["metadata"]["name"]


@pytest.mark.parametrize(
    "values", [at("api.replicas", 4), at("api.image.tag", "2.0"), at("networkPolicy.enabled", False), KEDA]
)
def test_what_does_not_concern_the_migration_does_not_run_it_again(values: Object) -> None:
    assert job(values) == job()


def test_only_what_a_job_may_change_changes_under_one_name() -> None:
    for values in (
        at("commonLabels", {"team": "chat"}),
        at("migration.backoffLimit", 3),
        at("migration.waitSeconds", 10),
    ):
        one, other = job(), job(values)
        if one["metadata"]["name"] == other["metadata"]["name"]:
            fixed = [  # what Kubernetes never lets change
                {
                    key: value
                    for key, value in found["spec"].items()
                    if key
                    not in (
                        "backoffLimit",
                        "ttlSecondsAfterFinished",
                        "activeDeadlineSeconds",
                        "suspend",
                        "parallelism",
                    )
                }
                for found in (one, other)
            ]
            assert fixed[0] == fixed[1], values


def test_no_pod_waits_for_another_before_it_starts() -> None:
    """With `--wait` a pod that waits for the migration, or for a store, could wait for ever."""
    for name, values in VALUE_SETS.items():
        for owner, pod in render(values).pods():
            assert not pod["spec"].get("initContainers"), f"{name}: {owner}"
