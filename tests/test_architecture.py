"""The walls of docs/adr/0004-core-and-its-walls.md, read from the source. Each rule is also seen to bite."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.main import create_app
from api.openapi.endpoints import PATHS
from api.openapi.failures import CODES
from api.routes.edge import HOT_PATH
from api.settings import read_settings
from api.tenants import Keyring
from core.settings import Environment
from local.parts import ROOT

PROCESSES = ("api", "worker")
PRODUCT = ("core", *PROCESSES)
FOLDERS = (*PRODUCT, "local", "bench", "examples", "tests", "k8s-tests")
MOST_LINES, MOST_TEST_LINES = 250, 400
SOURCES = (".py", ".lua", ".sql")

SQL = re.compile(
    r"\b(SELECT\s+(1|\*|\w+[\s,(.])|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|TRUNCATE\s|COPY\s+\w+\s+(FROM|TO)|"
    r"(CREATE|ALTER|DROP)\s+(TABLE|INDEX|DATABASE|SCHEMA)|SET\s+(LOCAL|SESSION)\s|LISTEN\s+\w|pg_\w+\()"
)
STORE_CALLS = {"fetch", "fetchrow", "fetchval", "executemany", "copy_records_to_table", "copy_to_table", "prepare"}
SQL_FILE = re.compile(r"(core|api|worker)/(\w+/)*store\.py")

REDIS_CALLS = re.compile(
    r"(eval|evalsha|script_load|fcall|blpop|brpop|blmove|expire|pexpire|persist|pttl|incrby|decrby|getdel|getex|setex|setnx"
    r"|h(set|get|mget|getall|del|incrby|exists|len)|[lr](push|pushx|pop|range|rem|set|trim|len|index)"
    r"|z(add|rem|score|card|range\w*|remrange\w*)|x(add|range|revrange|read|del|trim|len)|s(add|rem|members|card))"
)
REDIS_RECEIVERS = {"redis", "pipeline", "_redis"}
# Of the connection, not of the data.
NO_COMMANDS = {"ping", "aclose"}
REDIS_FILE = re.compile(r"((core|worker)/queue\w*|core/durability|api/(history/\w+|lanes))\.py")
LUA_FILE = re.compile(r"(core|api|worker)/scripts/\w+\.lua")

# Where each of these takes the code of an error.
CODE_PLACES = {"ApiError": 2, "invalid": 0, "refused": 0, "UpstreamError": 1, "PassingError": 1, "kind": 1, "super": 1}

Rule = Callable[[Path], list[str]]


def files(root: Path, folders: tuple[str, ...], *suffixes: str) -> Iterator[tuple[str, Path]]:
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in suffixes and not path.name.startswith("."):
                yield path.relative_to(root).as_posix(), path


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(root: Path, path: Path) -> set[str]:
    """The modules that a file imports, as dotted names; `from a import b` is both `a` and `a.b`."""
    package = path.relative_to(root).parent.parts
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            found.update((module, *(f"{module}.{alias.name}" for alias in node.names)))
    return found


def processes_are_strangers(root: Path) -> list[str]:
    """api and worker import core and themselves; core imports neither."""
    others = {"api": {"worker"}, "worker": {"api"}, "core": {"api", "worker"}}
    return [
        f"{name} imports {module}"
        for folder, forbidden in others.items()
        for name, path in files(root, (folder,), ".py")
        for module in imports(root, path)
        if module.partition(".")[0] in forbidden | {"local", "tests", "bench"}
    ]


def core_is_for_both(root: Path) -> list[str]:
    """Both processes import each module of core, directly or through another one."""
    modules = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): imports(root, path)
        for name, path in files(root, ("core",), ".py")
    }
    lonely = []
    for process in PROCESSES:
        reached: set[str] = {"core"}
        ahead = {module for _, path in files(root, (process,), ".py") for module in imports(root, path)}
        while ahead := (ahead & modules.keys()) - reached:
            reached |= ahead
            ahead = {module for found in ahead for module in modules[found]}
        lonely += [f"{process} does not import {module}" for module in sorted(modules.keys() - reached)]
    return lonely


def _texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """String constants that are no docstrings."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in bare:
            text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if isinstance(text, str):
                yield node.lineno, text


def _calls(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """(line, receiver's last name, method) of each method call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            receiver = node.func.value
            last = receiver.attr if isinstance(receiver, ast.Attribute) else getattr(receiver, "id", "")
            yield node.lineno, last, node.func.attr


def sql_is_in_stores(root: Path) -> list[str]:
    found = []
    for name, path in files(root, PRODUCT, ".py"):
        if not SQL_FILE.fullmatch(name):
            tree = parsed(path)
            found += [f"{name}:{line} {text[:60]!r}" for line, text in _texts(tree) if SQL.search(text)]
            found += [f"{name}:{line} .{method}()" for line, _, method in _calls(tree) if method in STORE_CALLS]
    found += [name for name, _ in files(root, PRODUCT, ".sql") if not name.startswith("core/schema/")]
    return found


def redis_is_in_queue_and_history(root: Path) -> list[str]:
    found = [name for name, _ in files(root, PRODUCT, ".lua") if not LUA_FILE.fullmatch(name)]
    for name, path in files(root, PRODUCT, ".py"):
        if not REDIS_FILE.fullmatch(name):
            found += [
                f"{name}:{line} {receiver}.{method}()"
                for line, receiver, method in _calls(parsed(path))
                if REDIS_CALLS.fullmatch(method) or (receiver in REDIS_RECEIVERS and method not in NO_COMMANDS)
            ]
    return found


def files_are_short(root: Path) -> list[str]:
    sizes = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files(root, FOLDERS, *SOURCES)}
    return [
        f"{name}: {lines} lines"
        for name, lines in sizes.items()
        if lines > (MOST_TEST_LINES if name.startswith(("tests/", "k8s-tests/")) else MOST_LINES)
    ]


def locks_name_no_host(root: Path) -> list[str]:
    host = re.compile(r"://|--(extra-)?index-url|--find-links|--trusted-host|^-[if] ")
    return [
        f"{path.name}:{number}"
        for path in sorted((root / "requirements").glob("*.txt"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if host.search(line)
    ]


def error_codes_are_told(root: Path) -> list[str]:
    """A code that a client can get is in the catalogue of the OpenAPI document."""
    told = {code for codes in CODES.values() for code in codes}
    return [
        f"{name}:{node.lineno} '{code}' is not in api/openapi/failures.py"
        for name, path in files(root, ("api",), ".py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        for code in _code_of(node)
        if code not in told
    ]


def _code_of(call: ast.Call) -> list[str]:
    """The code in a call that makes an error, also in `super().__init__(…)` of one."""
    function = call.func
    if isinstance(function, ast.Attribute) and function.attr == "__init__" and isinstance(function.value, ast.Call):
        function = function.value.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    place = CODE_PLACES.get(name, len(call.args))
    return [
        argument.value
        for argument in call.args[place : place + 1]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


RULES: list[Rule] = [
    error_codes_are_told,
    processes_are_strangers,
    core_is_for_both,
    sql_is_in_stores,
    redis_is_in_queue_and_history,
    files_are_short,
    locks_name_no_host,
]


@pytest.mark.parametrize("rule", RULES)
def test_the_walls_stand(rule: Rule) -> None:
    assert rule(ROOT) == []


def test_they_are_looked_for_in_the_right_places() -> None:
    assert {folder for folder in FOLDERS if list(files(ROOT, (folder,), ".py"))} == set(FOLDERS)
    assert len(list((ROOT / "requirements").glob("*.txt"))) == 5


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (processes_are_strangers, "api/a.py", "from worker.queue import claim"),
        (processes_are_strangers, "api/turn/a.py", "def f():\n    import worker"),
        (processes_are_strangers, "worker/a.py", "from api.history import steps"),
        (processes_are_strangers, "core/a.py", "import api.main"),
        (core_is_for_both, "core/lonely.py", "X = 1"),
        (core_is_for_both, "core/half/__init__.py", "from core import queue"),
        (sql_is_in_stores, "api/a.py", "QUERY = 'SELECT item FROM items'"),
        (sql_is_in_stores, "worker/a.py", "async def f(c):\n    await c.execute(f'TRUNCATE {1}')"),
        (sql_is_in_stores, "api/turn/a.py", "async def f(pool, query):\n    return await pool.fetchrow(query)"),
        (sql_is_in_stores, "api/a.sql", "SELECT 1"),
        (redis_is_in_queue_and_history, "api/a.py", "async def f(c):\n    await c.hset('conv:a:b', 'len', 1)"),
        (redis_is_in_queue_and_history, "worker/a.py", "async def f(w):\n    await w.redis.get('x')"),
        (redis_is_in_queue_and_history, "api/turn/history.py", "async def f(redis):\n    await redis.delete('x')"),
        (redis_is_in_queue_and_history, "api/turn/a.lua", "return 1"),
        (files_are_short, "worker/a.py", "\n" * 251),
        (files_are_short, "api/scripts/a.lua", "\n" * 251),
        (files_are_short, "tests/a.py", "\n" * 401),
        (error_codes_are_told, "api/a.py", "raise ApiError(400, 'x', 'new_code', 'message')"),
        (error_codes_are_told, "api/a.py", "raise errors.invalid('new_code', 'message', None)"),
        (
            error_codes_are_told,
            "api/a.py",
            "class E(UpstreamError):\n    def __init__(self):\n        super().__init__(502, 'new')",
        ),
        (locks_name_no_host, "requirements/a.txt", "redis @ https://files.example/redis.whl"),
        (locks_name_no_host, "requirements/a.txt", "--index-url=mirror"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, rule: Rule, name: str, text: str) -> None:
    sound = {
        "core/queue.py": "async def depth(redis):\n    return await redis.llen('chatQueue')",
        "core/names.py": "'''SELECT one FROM many'''",
        "api/store.py": "QUERY = 'SELECT 1'",
        "api/main.py": "from core.queue import depth\nfrom core import names",
        "worker/__main__.py": "import core.queue\nfrom core import names",
        "requirements/api.txt": "redis==1",
    }
    for place, source in sound.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(source)
    assert rule(tmp_path) == []
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    assert len(rule(tmp_path)) in (1, 2), "one for each process at most"


def test_the_openapi_document_tells_every_endpoint() -> None:
    """FastAPI's own document, which nobody is served, knows the routes; the hot endpoint is the edge's."""
    settings = read_settings(Environment({"AUTH": "none", "REDIS_HOST": "nowhere", "PG_HOST": "nowhere"}))
    app = create_app(settings, Keyring(settings.callers, settings.keys_file))
    routes = {(method, path) for path, methods in app.openapi()["paths"].items() for method in methods}
    told = {(method, path) for path, methods in PATHS.items() for method in methods}
    assert routes | {("post", HOT_PATH)} == told, "see api/openapi/endpoints.py"


def test_the_openapi_document_tells_no_error_code_that_nobody_makes() -> None:
    texts = {
        node.value
        for name, path in files(ROOT, ("api",), ".py")
        if name != "api/openapi/failures.py"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Constant)
    }
    composed = {f"{kind}_{what}_value" for kind in ("integer", "decimal") for what in ("above_max", "below_min")}
    composed |= {f"{kind}_not_found" for kind in ("response", "conversation", "item", "model")}
    assert {code for codes in CODES.values() for code in codes} - texts - composed == set()
