"""What being observed costs an API: CPU per turn with metrics that count and ones that don't, and with traces.

    python -m bench.observing [--clients 32] [--seconds 1] [--rounds 20] [--stream]

APIs that differ in nothing else are measured in turn, on the same stores; the medians are compared, and the best
rounds, for what else a machine does only adds. The one as it is shipped is there twice: what lies between its two rows
is chance. The model server takes the traces, as it takes everything.
"""

import argparse
import asyncio
import statistics
import sys
from contextlib import AsyncExitStack

from bench.stack import STOP_SECONDS, Stack, started
from bench.turns import RESPONSE, load
from local.children import HOST, Child, free_port
from local.parts import start_module

SHIPPED = "as shipped"
# The module that is run, and the share of turns that are traced.
APIS = {
    SHIPPED: ("api", None),
    "the same again": ("api", None),
    "metrics that count nothing": ("bench.uncounted", None),
    "1 % traced": ("api", 0.01),
    "100 % traced": ("api", 1.0),
}


async def start_api(stack: Stack, module: str, share: float | None) -> tuple[Child, int]:
    port = free_port()
    environment = {**stack.environment, "PORT": str(port), "METRICS_PORT": str(free_port())}
    if share is not None:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{HOST}:{stack.upstream_port}"
        environment |= {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": str(share)}
    return await start_module(module, environment, stack.folder / str(port), port), port


async def measure(clients: int, seconds: float, rounds: int, *, stream: bool) -> dict[str, list[float]]:
    """Milliseconds of CPU per turn, of each round."""
    taken: dict[str, list[float]] = {name: [] for name in APIS}
    async with started() as stack, AsyncExitStack() as extra:
        apis = {}
        for name, (module, share) in APIS.items():
            apis[name] = await start_api(stack, module, share)
            extra.push_async_callback(apis[name][0].stop, STOP_SECONDS)
        for number in range(-1, rounds):
            for name, (api, port) in apis.items():
                body = {**RESPONSE, "stream": stream}
                figures = await load(port, "/v1/responses", body, api.process.pid, clients, seconds)
                if number >= 0:  # the one before warms up
                    taken[name].append(figures["cpu_ms"])
            sys.stderr.write(f"round {number + 1} of {rounds}\n")
    return taken


def show(taken: dict[str, list[float]]) -> None:
    print("| the API | CPU ms per turn | to the first | best round | to the first |\n|---|---|---|---|---|")
    median, best = statistics.median(taken[SHIPPED]), min(taken[SHIPPED])
    for name, figures in taken.items():
        mine, least = statistics.median(figures), min(figures)
        compared = f"{mine:.3f} | {100 * (mine / median - 1):+.1f} % | {least:.3f} | {100 * (least / best - 1):+.1f} %"
        print(f"| {name} | {compared} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--stream", action="store_true")
    chosen = parser.parse_args()
    show(asyncio.run(measure(chosen.clients, chosen.seconds, chosen.rounds, stream=chosen.stream)))
