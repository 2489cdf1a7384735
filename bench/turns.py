"""Turns per second beside a bare relay, and the latency that a long history adds.

    python -m bench.turns [--clients 64] [--seconds 5] [--rounds 3] [--json]

Each round measures relay and service one after the other; the medians are compared. CPU is the measured process's own.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from typing import Any

import aiohttp
import psutil
from redis.asyncio import Redis

from bench.stack import Stack, started
from core.queue import depth
from local.children import HOST

Figures = dict[str, float]

CHAT = {"model": "bench", "messages": [{"role": "user", "content": "How is the weather in Paris today?"}]}
RESPONSE = {"model": "bench", "input": "How is the weather in Paris today?"}
ITEMS_PER_CREATE = 20
HISTORY_TURNS = (1, 10, 50, 1000)
LATENCY_SAMPLES = 200


async def load(port: int, path: str, body: dict[str, Any], pid: int, clients: int, seconds: float) -> Figures:
    """Figures of the load generator, and the CPU seconds that `pid` took for them."""
    process = psutil.Process(pid)
    before = process.cpu_times()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", "--port", str(port), "--path", path, "--body", json.dumps(body),
        "--clients", str(clients), "--seconds", str(seconds), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await child.communicate()
    after = process.cpu_times()
    figures: Figures = json.loads(output)
    cpu = after.user + after.system - before.user - before.system
    return {**figures, "cpu_ms": 1000 * cpu / max(1, figures["turns"])}


async def compare(stack: Stack, clients: int, seconds: float, rounds: int) -> dict[str, Figures]:
    table: dict[str, Figures] = {}
    for stream in (False, True):
        name = "streamed" if stream else "not streamed"
        relay: list[Figures] = []
        service: list[Figures] = []
        extra = {"stream": True} if stream else {}
        for number in range(rounds):
            relay_body, service_body = {**CHAT, **extra}, {**RESPONSE, **extra}
            relay_path, relay_pid = "/v1/chat/completions", stack.relay.process.pid
            relay.append(await load(stack.relay_port, relay_path, relay_body, relay_pid, clients, seconds))
            service_pid = stack.api.process.pid
            service.append(await load(stack.api_port, "/v1/responses", service_body, service_pid, clients, seconds))
            progress(f"{name}, round {number + 1} of {rounds}", relay[-1], service[-1])
        table[f"relay, {name}"] = medians(relay)
        table[f"service, {name}"] = medians(service)
    return table


def medians(rounds: list[Figures]) -> Figures:
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def progress(what: str, relay: Figures, service: Figures) -> None:
    sys.stderr.write(f"{what}: relay {relay['per_second']:,.0f}/s, service {service['per_second']:,.0f}/s\n")


async def drain(stack: Stack) -> float:
    """Seconds from now until PostgreSQL has everything."""
    began = time.perf_counter()
    async with Redis(port=stack.redis_port) as redis:
        while await depth(redis):  # noqa: ASYNC110 - another process can't set an Event
            await asyncio.sleep(0.01)
    return time.perf_counter() - began


async def history_latency(stack: Stack) -> dict[int, Figures]:
    """Milliseconds of one turn after the other on conversations of several lengths, less the upstream's own time."""
    direct_url, url = f"http://{HOST}:{stack.upstream_port}/v1/chat/completions", f"http://{HOST}:{stack.api_port}/v1"
    figures = {}
    async with aiohttp.ClientSession() as session:
        direct = statistics.median(await samples(session, direct_url, CHAT))
        for turns in HISTORY_TURNS:
            async with session.post(f"{url}/conversations", json={}) as answer:
                conversation = (await answer.json())["id"]
            items = [
                {"type": "message", "role": role, "content": "word " * 60} for role in ("user", "assistant")
            ] * turns
            for first in range(0, len(items), ITEMS_PER_CREATE):
                body = {"items": items[first : first + ITEMS_PER_CREATE]}
                async with session.post(f"{url}/conversations/{conversation}/items", json=body) as answer:
                    assert answer.status == 200, await answer.text()
            taken = sorted(await samples(session, f"{url}/responses", {**RESPONSE, "conversation": conversation}))
            p95 = taken[int(len(taken) * 0.95)]
            figures[turns] = {
                "p50_ms": statistics.median(taken),
                "p95_ms": p95,
                "added_p50_ms": statistics.median(taken) - direct,
            }
            sys.stderr.write(f"history of {turns} turns: p50 {figures[turns]['p50_ms']:.2f} ms\n")
    return figures


async def samples(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> list[float]:
    taken = []
    for _ in range(LATENCY_SAMPLES):
        began = time.perf_counter()
        async with session.post(url, json=body) as answer:
            await answer.read()
            assert answer.status == 200, answer.status
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def show(table: dict[str, Figures], latency: dict[int, Figures], drained_seconds: float) -> None:
    print("| | turns/s | p50 ms | p95 ms | CPU ms per turn | errors |\n|---|---|---|---|---|---|")
    for name, figures in table.items():
        print(
            f"| {name} | {figures['per_second']:,.0f} | {figures['p50_ms']:.1f} | {figures['p95_ms']:.1f} "
            f"| {figures['cpu_ms']:.3f} | {figures['errors']:.0f} |"
        )
    for name in ("not streamed", "streamed"):
        relay, service = table[f"relay, {name}"], table[f"service, {name}"]
        print(
            f"\n{name}: {service['per_second'] / relay['per_second']:.2f} of the relay's turns/s, "
            f"{relay['cpu_ms'] / service['cpu_ms']:.2f} by CPU of the one process"
        )
    print(f"\nqueue empty {drained_seconds:.2f} s after the last turn\n")
    print("| history, turns | p50 ms | p95 ms | added to the upstream, p50 ms |\n|---|---|---|---|")
    for turns, figures in latency.items():
        print(f"| {turns} | {figures['p50_ms']:.2f} | {figures['p95_ms']:.2f} | {figures['added_p50_ms']:.2f} |")


async def main(clients: int, seconds: float, rounds: int, *, as_json: bool) -> None:
    async with started() as stack:
        table = await compare(stack, clients, seconds, rounds)
        drained_seconds = await drain(stack)
        latency = await history_latency(stack)
    if as_json:
        print(json.dumps({"turns": table, "drained_seconds": drained_seconds, "history": latency}))
    else:
        show(table, latency, drained_seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.clients, chosen.seconds, chosen.rounds, as_json=chosen.json))
