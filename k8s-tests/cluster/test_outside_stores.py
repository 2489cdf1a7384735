"""A release on stores that are not its own, which speak TLS alone and show a certificate that must be checked."""

import pytest

from cluster.check import visit
from cluster.conftest import NewNamespace
from cluster.images import Images
from cluster.kube import Json, apps, ask
from cluster.outside import PASSWORD, POSTGRESQL, REDIS, host, start_stores
from cluster.release import Release, basic_values, merged
from tests.chaos.users import load

pytestmark = pytest.mark.anyio
ITEMS = 500
SECRET, AUTHORITY = "passwords", "authority"
ENCRYPTED = """
SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
 WHERE client_addr IS NOT NULL
"""


async def test_stores_with_tls(new_namespace: NewNamespace, images: Images) -> None:
    outside, namespace = await new_namespace("stores"), await new_namespace("external")
    stores, authority = await start_stores(outside)
    passwords = {"redis-password": PASSWORD, "postgresql-password": PASSWORD}
    await namespace.create_objects(_secret(SECRET, passwords), _secret(AUTHORITY, {"ca.crt": authority}))
    tls = {"caSecret": AUTHORITY}
    external: Json = {
        "api": {"replicas": 1},
        "redis": _outside(host(outside, REDIS), {**tls, "enabled": True}),
        "postgresql": _outside(host(outside, POSTGRESQL), {**tls, "mode": "verify-full"}),
    }
    release = Release(namespace, "chatbot", merged(basic_values(images), external))
    await release.install()
    async with visit(release, stores) as town:
        async with load(town, town.door) as users:
            await users.reach(ITEMS)
        ((connections, encrypted),) = await stores.sql(ENCRYPTED)
        assert int(connections) == int(encrypted) > 0
    assert await release.run_tests()
    assert (await ask(apps().list_namespaced_stateful_set, namespace.name)).items == []


def _secret(name: str, values: dict[str, str]) -> Json:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


def _outside(address: str, tls: Json) -> Json:
    return {"enabled": False, "external": {"host": address, "existingSecret": SECRET, "tls": tls}}
