"""Counting the requests that nothing is stored of; those of stored turns are counted by begin and finish."""

import secrets

from api.history.scripts import script
from api.lanes import Lanes
from api.rates import Allowance

_take = script("take", allow_oom=True, counts=True)
_settle = script("settle", allow_oom=True, counts=True)


async def take(lanes: Lanes, tenant: str, allowance: Allowance, wanted_tokens: int) -> bool:
    """Count a request and so many tokens; False: it has to wait."""
    limits = allowance.limits
    token = secrets.token_hex(16)
    admitted, left = await lanes.call(_take, tenant, token, limits.requests, limits.tokens, wanted_tokens)
    allowance.note(left)
    return bool(admitted)


async def settle(lanes: Lanes, tenant: str, allowance: Allowance, over: int) -> None:
    """`over`: tokens that were used beyond those that were taken."""
    await lanes.call(_settle, tenant, secrets.token_hex(16), allowance.limits.tokens, over)
