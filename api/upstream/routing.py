"""From the name of a model to the providers that answer for it: what a turn asks."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from api import metrics
from api.upstream import traced
from api.upstream.exchange import Ask, Count, Delta, UpstreamError
from api.upstream.failures import ProviderError, timed_out
from api.upstream.provider import Provider
from api.upstream.settings import ANY_MODEL, Upstreams

T = TypeVar("T")
# A provider that doesn't list its models within this is left out: a list is no reason to wait as for an answer.
LIST_SECONDS = 10.0
MOST_NAMES_TOLD = 50

Chosen = Callable[[str], None]
"""Called with the name of the provider that answers."""


def nobody(_: str) -> None:
    """Who asks does not want to know."""


class Target(NamedTuple):
    provider: Provider
    model: str
    """As this provider calls it; empty: as the client does."""


@dataclass(frozen=True, slots=True)
class Route:
    """What is configured for a model: its targets in the order in which they are asked, and its limits, if known."""

    targets: tuple[Target, ...]
    context_tokens: int | None = None
    max_output_tokens: int | None = None


class Table:
    """One reading of what is configured. `users` are the calls that go by it: its providers stay until they end."""

    def __init__(self, upstreams: Upstreams, former: dict[str, Provider]) -> None:
        """A provider that is in `former` with the same settings goes on, with its connections and its breaker."""
        self.upstreams = upstreams
        self.users = 0
        kept = {name: one for name, one in former.items() if upstreams.providers.get(name) == one.settings}
        for name in former.keys() - kept.keys():
            metrics.UPSTREAM_BREAKER.remove(name)
        self.providers = {
            name: kept.get(name) or Provider(name, settings) for name, settings in upstreams.providers.items()
        }
        self.routes: dict[str, Route] = {}
        for name, model in upstreams.models.items():
            own = "" if name == ANY_MODEL else name
            targets = tuple(Target(self.providers[to.provider], to.model or own) for to in model.targets)
            route = Route(targets, model.context_tokens, model.max_output_tokens)
            self.routes.update(dict.fromkeys((name, *model.aliases), route))
        self.longest_seconds = max(
            sum(target.provider.longest_seconds for target in route.targets) for route in self.routes.values()
        )

    def route(self, model: str) -> Route:
        route = self.routes.get(model) or self.routes.get(ANY_MODEL)
        if route is None or model == ANY_MODEL:
            raise _unknown_model(model, sorted(self.routes.keys() - {ANY_MODEL}))
        return route


class Routing:
    """Another target is asked only before the first token, and only when the failure isn't the request's own."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._table = Table(upstreams, {})
        self._former: list[Table] = []

    @property
    def longest_seconds(self) -> float:
        """After this every answer is over, whatever happened to it."""
        return max(table.longest_seconds for table in (self._table, *self._former))

    @property
    def upstreams(self) -> Upstreams:
        return self._table.upstreams

    def use(self, upstreams: Upstreams) -> None:
        """From now on; what runs goes on as it began."""
        self._former.append(self._table)
        self._table = Table(upstreams, self._table.providers)

    async def close_unused(self) -> None:
        """Drop the former tables that no call goes by any more, with the providers that are nowhere else."""
        unused = [table for table in self._former if not table.users]
        self._former = [table for table in self._former if table.users]
        needed = {provider for table in (self._table, *self._former) for provider in table.providers.values()}
        for provider in {provider for table in unused for provider in table.providers.values()} - needed:
            await provider.close()

    @contextlib.contextmanager
    def _current(self) -> Iterator[Table]:
        table = self._table
        table.users += 1
        try:
            yield table
        finally:
            table.users -= 1

    def route(self, model: str) -> Route:
        """Raises UpstreamError 404 for a model that nobody answers for."""
        return self._table.route(model)

    def names(self, model: str) -> bool:
        """Whether it is configured under this name, and not only answered for by `*`."""
        return model != ANY_MODEL and model in self._table.routes

    def stream(self, ask: Ask, chosen: Chosen = nobody) -> AsyncGenerator[list[Delta], None]:
        """What each network read brought (a list that is never empty), in order, and last Usage and Finish; who leaves
        early closes it (`contextlib.aclosing`)."""
        return traced.stream(ask, lambda: self._stream(ask, chosen))

    async def _stream(self, ask: Ask, chosen: Chosen) -> AsyncGenerator[list[Delta], None]:
        with self._current() as table:
            provider, stream = await _answered(table, ask, Provider.begin)
            chosen(provider.name)
            failure, whole = None, False
            try:
                deltas = stream.first
                while deltas:
                    yield deltas
                    deltas = await stream.read()
                whole = True
            except UpstreamError as error:
                failure = error
                raise
            finally:
                stream.close()
                provider.end(failure, whole=whole)

    async def complete(self, ask: Ask, chosen: Chosen = nobody) -> list[Delta]:
        return await traced.complete(ask, lambda: self._complete(ask, chosen))

    async def _complete(self, ask: Ask, chosen: Chosen) -> list[Delta]:
        with self._current() as table:
            provider, deltas = await _answered(table, ask, Provider.complete)
            chosen(provider.name)
            return deltas

    async def count(self, ask: Ask) -> Count:
        """As the provider counts that is asked first."""
        with self._current() as table:
            route = table.route(ask.model)
            first = route.targets[0]
            return await first.provider.count(_for_target(ask, route, first.model))

    async def models(self) -> dict[str, str]:
        """Every model that can be asked for, and whose it is. Those of a provider that is down are left out, unless
        there is nothing else to tell: then its UpstreamError is raised."""
        with self._current() as table:
            return await _models(table.routes)

    async def close(self) -> None:
        for provider in {provider for table in (self._table, *self._former) for provider in table.providers.values()}:
            await provider.close()


async def _answered(table: Table, ask: Ask, call: Callable[[Provider, Ask], Awaitable[T]]) -> tuple[Provider, T]:
    """The first answer that there is, and whose it is. When there is none: the first failure, and how soon one of the
    targets may answer."""
    route = table.route(ask.model)
    failures: list[UpstreamError] = []
    for provider, model in route.targets:
        try:
            return provider, await call(provider, _for_target(ask, route, model))
        except ProviderError as error:
            failures.append(error)
            if len(failures) < len(route.targets):
                metrics.UPSTREAM_FALLBACKS.labels(provider.name).inc()
    waits = [error.retry_after_seconds for error in failures if error.retry_after_seconds is not None]
    failures[0].retry_after_seconds = min(waits, default=None)
    raise failures[0]


async def _models(routes: dict[str, Route]) -> dict[str, str]:
    found: dict[str, str] = {}
    failure: UpstreamError | None = None
    anything = routes.get(ANY_MODEL)
    providers = [target.provider for target in anything.targets if not target.model] if anything else []
    for provider, names in zip(providers, await asyncio.gather(*map(_listed, providers)), strict=True):
        if isinstance(names, UpstreamError):
            failure = failure or names
        else:
            found.update((name, provider.name) for name in names if name not in found)
    found.update((name, route.targets[0].provider.name) for name, route in routes.items())
    found.pop(ANY_MODEL, None)
    if failure is not None and not found:
        raise failure
    return found


def _for_target(ask: Ask, route: Route, model: str) -> Ask:
    name, limit = model or ask.model, ask.max_output_tokens
    if limit is None:
        limit = route.max_output_tokens
    if name == ask.model and limit == ask.max_output_tokens:
        return ask
    return dataclasses.replace(ask, model=name, max_output_tokens=limit)


async def _listed(provider: Provider) -> list[str] | UpstreamError:
    try:
        async with asyncio.timeout(LIST_SECONDS):
            return await provider.models()
    except UpstreamError as error:
        return error
    except TimeoutError:
        return timed_out("before it had listed its models")


def _unknown_model(model: str, names: list[str]) -> UpstreamError:
    shown = ", ".join(names[:MOST_NAMES_TOLD]) + (", …" if len(names) > MOST_NAMES_TOLD else "")
    message = f"The model '{model}' does not exist. The models are: {shown}."
    return UpstreamError(404, "model_not_found", message, param="model")
