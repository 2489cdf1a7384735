"""A real Prometheus (Debian's) that scrapes processes of ours once a second and evaluates the rules it is given."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import yaml
from aiohttp import web

from local.children import HOST, Child, free_port, spawn, wait_ready
from local.parts import status
from tests.running import Part, Service

Json = dict[str, Any]
INTERVAL = "1s"
START_SECONDS = 30.0
# None of our queries takes more than milliseconds.
ANSWER = aiohttp.ClientTimeout(total=10)


class PrometheusMissingError(Exception):
    def __init__(self) -> None:
        super().__init__("there is no prometheus on this machine: apt install prometheus")


class Target(NamedTuple):
    """What the operator would find: a pod of a component of a release in a namespace."""

    namespace: str
    release: str
    job: str
    port: int


def targets_of(namespace: str, service: Service) -> list[Target]:
    return [
        Target(namespace, "c", "api", int(service.environment["METRICS_PORT"])),
        Target(namespace, "c", "worker", service.worker.port),
    ]


@dataclass
class Prometheus(Part):
    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def query(self, expression: str) -> list[Json]:
        """The samples of an instant query now; fails with Prometheus's own words."""
        data = await self._get("/api/v1/query", query=expression)
        assert data["resultType"] == "vector", f"{data['resultType']}: {expression}"
        return list(data["result"])

    async def firing(self) -> set[tuple[str, str]]:
        """(namespace, alert) of all that fire."""
        alerts = (await self._get("/api/v1/alerts"))["alerts"]
        labels = [alert["labels"] for alert in alerts if alert["state"] == "firing"]
        return {(one["namespace"], one["alertname"]) for one in labels}

    async def names(self, *jobs: str) -> set[str]:
        """The names of all series that these jobs have been seen with."""
        return set(await self._get("/api/v1/label/__name__/values", **{"match[]": f'{{job=~"{"|".join(jobs)}"}}'}))

    async def _get(self, path: str, **parameters: str) -> Any:
        async with aiohttp.request("GET", self.url + path, params=parameters, timeout=ANSWER) as answer:
            told: Json = await answer.json()
        assert told["status"] == "success", f"{told.get('error')}: {parameters}"
        return told["data"]


def prometheus_in(folder: Path, targets: Sequence[Target], rules: Path) -> Prometheus:
    """Not started yet; its data and configuration go to `folder`. `rules` is a folder of rule files."""
    program = shutil.which("prometheus")
    if program is None:
        raise PrometheusMissingError
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(_config(targets, rules)), encoding="utf-8")
    data = f"--storage.tsdb.path={folder / 'data'}"
    command = [program, f"--config.file={config}", data, f"--web.listen-address={HOST}:{port}", "--log.level=warn"]

    async def start() -> Child:
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        child = await spawn("prometheus", command, folder, environment=environment)

        async def ready(_: Child) -> bool:
            return await status(port, "/-/ready") == 200

        return await wait_ready(child, ready, START_SECONDS)

    return Prometheus(port, start)


def _config(targets: Sequence[Target], rules: Path) -> Json:
    jobs = [
        {
            "job_name": job,
            # Of kube-state-metrics and KEDA: their `namespace` is the one that they tell of.
            "honor_labels": True,
            "static_configs": [
                {
                    "targets": [f"{HOST}:{one.port}"],
                    "labels": {"namespace": one.namespace, "release": one.release, "pod": f"{job}-0"},
                }
                for one in targets
                if one.job == job
            ],
        }
        for job in sorted({one.job for one in targets})
    ]
    intervals = {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
    return {"global": intervals, "scrape_configs": jobs, "rule_files": [f"{rules}/*.yaml"]}


@dataclass
class Cluster:
    """Stands in for kube-state-metrics and KEDA, which there are none of here: series under their real names.

    A test changes `samples`; `target` is how Prometheus finds it.
    """

    samples: dict[str, float]
    port: int = field(default_factory=free_port)
    _runner: web.AppRunner | None = None

    @property
    def target(self) -> Target:
        return Target("monitoring", "", "cluster", self.port)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self.port).start()

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(text="".join(f"{name} {value}\n" for name, value in self.samples.items()))

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


def healthy(namespace: str) -> dict[str, float]:
    """What a cluster tells of a release `c` with KEDA that wants two workers, and a migration that is done."""
    autoscaler = f'{{namespace="{namespace}",horizontalpodautoscaler="keda-hpa-c-worker"}}'
    job = f'namespace="{namespace}",job_name="c-migrate-1a2b3c4d"'
    owner = f'namespace="{namespace}",scaledObject="c-worker"'
    trigger = f'{{{owner},scaler="redisScaler",triggerIndex="0",metric="s0-redis-chatQueue",type="scaledobject"}}'
    return {
        f"kube_horizontalpodautoscaler_status_desired_replicas{autoscaler}": 2,
        f"kube_horizontalpodautoscaler_status_current_replicas{autoscaler}": 2,
        f"kube_horizontalpodautoscaler_spec_max_replicas{autoscaler}": 2,
        f"kube_horizontalpodautoscaler_spec_min_replicas{autoscaler}": 1,
        f"kube_job_created{{{job}}}": 1_700_000_000,
        f'kube_job_failed{{{job},condition="true"}}': 0,
        f"keda_scaler_active{trigger}": 1,
        f"keda_scaler_metrics_value{trigger}": 7,
        f"keda_scaler_detail_errors_total{trigger}": 0,
        f"keda_scaled_object_errors_total{{{owner}}}": 0,
    }
