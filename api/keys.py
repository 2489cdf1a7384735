"""`python -m api keys`: makes API keys and their blocks for the keys file (docs/tenants.md)."""

import argparse
import secrets
import sys

from pydantic import ValidationError

from api.tenants import EVERYTHING, Key, digest

KEY_BYTES = 32


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m api", description="Serves the API.")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="without COMMAND it serves until stopped")
    actions = commands.add_parser("keys", help="keys for the file that KEYS_FILE names").add_subparsers(
        dest="action", required=True
    )
    for name, told in (
        ("new", "make a key: it goes to standard error, this once, its block of the file to standard output"),
        ("hash", "read a key that exists from standard input, and print its block of the file"),
    ):
        action = actions.add_parser(name, help=told)
        action.add_argument("tenant", help="whose data the key opens")
        action.add_argument("name", help="what metrics and logs call the key")
        action.add_argument("--scopes", nargs="+", choices=sorted(EVERYTHING), default=sorted(EVERYTHING))
    return top


def carry_out(arguments: argparse.Namespace) -> int:
    """Print a block; the result is the process's exit status."""
    new = arguments.action == "new"
    key = f"sk-{secrets.token_urlsafe(KEY_BYTES)}" if new else sys.stdin.readline().strip()
    if not key:
        return _refuse("no key came on standard input")
    sha256 = digest(key.encode()).hex()
    try:
        known = Key(tenant=arguments.tenant, name=arguments.name, sha256=sha256, scopes=arguments.scopes)
    except ValidationError as error:
        wrong = ", ".join(str(one["loc"][0]) for one in error.errors())
        return _refuse(f"{wrong}: 1 to 64 letters, digits, '-' and '_'")
    if new:
        sys.stderr.write(f"{key}\n")
    scopes = ", ".join(f'"{scope}"' for scope in known.scopes)
    lines = (
        f'tenant = "{known.tenant}"',
        f'name = "{known.name}"',
        f'sha256 = "{known.sha256}"',
        f"scopes = [{scopes}]",
    )
    sys.stdout.write("\n".join(("[[keys]]", *lines, "\n")))
    return 0


def _refuse(why: str) -> int:
    sys.stderr.write(f"{why}\n")
    return 2
