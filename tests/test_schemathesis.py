"""schemathesis tries what our OpenAPI document allows and forbids: no answer may be one that it does not tell.

`SCHEMATHESIS_EXAMPLES=500 make test TESTS=tests/test_schemathesis.py` takes longer and looks deeper.
"""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.conftest import StartService

pytestmark = pytest.mark.anyio

KEY = "a key"
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "8"))
SEED = os.environ.get("SCHEMATHESIS_SEED", "1")
# Per example of an endpoint; and what it takes without any.
SECONDS, LEAST_SECONDS = 4, 240
# Not checked: what no schema can say is refused too (two fields that exclude each other, a NUL); `Allow` of
# /v1/responses/input_tokens, which is an id to the methods that read and delete; and whether what was created is there,
# for an Idempotency-Key that comes again gets its first answer, also when what it had created was deleted since.
UNCHECKED = "positive_data_acceptance,allow_header_conformance,ensure_resource_availability"


async def test_everything_that_the_document_allows_and_forbids(start_service: StartService, tmp_path: Path) -> None:
    service = await start_service(MODEL="echo", API_KEY=KEY, AUTH="")
    document = f"{service.url.removesuffix('/v1')}/openapi.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--no-color", "run", document,
        "--header", f"Authorization: Bearer {KEY}", "--phases", "examples,coverage,fuzzing,stateful",
        "--max-examples", str(EXAMPLES), "--seed", SEED, "--checks", "all", "--exclude-checks", UNCHECKED,
        "--request-timeout", "10", "--continue-on-failure", "--no-shrink", "--warnings", "off",
        cwd=tmp_path,
        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(tmp_path), "COLUMNS": "160"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), LEAST_SECONDS + SECONDS * EXAMPLES)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    told = output.decode()
    assert process.returncode == 0, told[-20_000:]
    # It has really been everywhere, and every phase has come to something.
    assert "Stateful (in" in told, told
    assert "No issues found" in told or "passed" in told, told
    assert "request failed" not in service.api.log_text()
