"""What Prometheus gets from the real processes."""

from dataclasses import dataclass

import aiohttp
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.running import Service

OPENMETRICS = "application/openmetrics-text"
# Prometheus itself gives up after ten.
SCRAPE_SECONDS = 1.0
PROCESSES = ("api", "worker")


@dataclass(frozen=True, slots=True)
class Scrape:
    families: list[Metric]

    def samples(self, name: str, **labels: str) -> list[Sample]:
        found = (sample for family in self.families for sample in family.samples)
        return [one for one in found if one.name == name and labels.items() <= one.labels.items()]

    def value(self, name: str, **labels: str) -> float:
        """The sum over all other labels."""
        found = self.samples(name, **labels)
        assert found, f"there is no {name} with {labels}"
        return sum(one.value for one in found)

    def names(self) -> set[str]:
        return {sample.name for family in self.families for sample in family.samples}


def urls(service: Service) -> dict[str, str]:
    return {"api": service.metrics_url, "worker": f"{service.worker_url}/metrics"}


async def scrape(service: Service, process: str = "api", *, openmetrics: bool = False) -> Scrape:
    """All that the process tells, within the time that it has for it."""
    headers = {"Accept": f"{OPENMETRICS};version=1.0.0,text/plain;version=0.0.4;q=0.5"} if openmetrics else {}
    timeout = aiohttp.ClientTimeout(total=SCRAPE_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.get(urls(service)[process], headers=headers) as told,
    ):
        assert told.status == 200
        assert told.headers["content-type"].startswith(OPENMETRICS) == openmetrics
        read = openmetrics_families if openmetrics else text_string_to_metric_families
        return Scrape(list(read(await told.text())))
