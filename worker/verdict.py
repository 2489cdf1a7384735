"""What an error of PostgreSQL means for the range that met it. Nothing unknown or transient is ever dead-lettered."""

from enum import Enum, auto

import asyncpg

from core.store import UNREACHABLE
from core.tls import refusal


class Verdict(Enum):
    POISON = auto()
    """A row holds what PostgreSQL will never take."""
    DUPLICATE = auto()
    """A row is there already, or another one in its place."""
    CONFIGURATION = auto()
    """Only a person can help: the schema, the rights or the database are wrong."""
    TRANSIENT = auto()
    """Wait, and do it again, for ever. Whatever is not known is this."""


# What a PostgreSQL raises that refuses something, is away, or goes away in the middle of a call.
TROUBLES = (asyncpg.PostgresError, *UNREACHABLE)

POISON = ("22", "23502", "23514", "54")
DUPLICATE = ("23505",)
CONFIGURATION = ("42", "28", "3D", "3F")


def verdict(error: BaseException) -> Verdict:
    state = sqlstate(error)
    if state.startswith(POISON):
        return Verdict.POISON
    if state.startswith(DUPLICATE):
        return Verdict.DUPLICATE
    if state.startswith(CONFIGURATION):
        return Verdict.CONFIGURATION
    return Verdict.TRANSIENT


def sqlstate(error: BaseException) -> str:
    """Empty for what PostgreSQL did not say."""
    return (error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""


def describe(error: BaseException) -> str:
    """An error without its text, which can quote a row; what TLS refused is told in words."""
    if told := refusal(error):
        return told
    state = sqlstate(error)
    return f"{type(error).__name__} ({state})" if state else type(error).__name__
