"""How an endpoint is written down: its parameters, its body, its answer and the ways in which it fails."""

from api.openapi.failures import RATES, WITH_ID, answers
from api.openapi.notation import TEXT, Json, always, either, one_of, record, ref
from api.routes.edge import LONGEST_IDEMPOTENCY_KEY
from api.schemas.edge import DEFAULT_LIMIT, LIST_LIMIT, LONGEST_NUMBER
from api.schemas.listing import LONGEST_SEARCH

ID_OR_NOTHING = "^[A-Za-z0-9_-]{0,128}$"
# What a link takes from an answer.
ITS_ID = "$response.body#/id"
# Every endpoint under /v1 can meet these.
ALWAYS = (401, 403, 500, 503)


def parameter(place: str, name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": place, "required": place == "path", "description": description, "schema": schema}


def path_id(name: str, prefix: str) -> Json:
    return parameter("path", name, f"`{prefix}…`", TEXT)


IDEMPOTENCY_KEY = parameter(
    "header",
    "Idempotency-Key",
    "For 24 hours the same key with the same body gets the same answer, with another body or endpoint 409.",
    {"type": "string", "maxLength": LONGEST_IDEMPOTENCY_KEY, "pattern": "^[ -~]*$"},
)
PAGING = [
    parameter("query", "after", "The `last_id` of the page before.", {"type": "string", "pattern": ID_OR_NOTHING}),
    parameter(
        "query",
        "limit",
        "How many at most.",
        {"type": "integer", "minimum": 1, "maximum": LIST_LIMIT, "default": DEFAULT_LIMIT},
    ),
    parameter("query", "order", "Oldest (`asc`) or newest first.", {**one_of("asc", "desc"), "default": "desc"}),
]
SEARCH = parameter(
    "query",
    "q",
    'Only conversations with an item that has all these words. `-word`, `or` and `"a phrase"` as in a web search.',
    {"type": "string", "minLength": 1, "maxLength": LONGEST_SEARCH},
)
METADATA_FILTER = {
    **parameter(
        "query",
        "metadata",
        "`metadata[key]=value`: only conversations with this pair; with several, those that have all.",
        {"type": "object", "additionalProperties": TEXT, "maxProperties": 16},
    ),
    "style": "deepObject",
    "explode": True,
}
RESUMING = [
    parameter("query", "stream", "The events instead of the object.", {"type": "boolean", "default": False}),
    parameter(
        "query",
        "starting_after",
        "Only events after this sequence number.",
        {"type": "integer", "minimum": 0, "maximum": 10 ** (LONGEST_NUMBER - 1) - 1},
    ),
]


def json_answer(name: str, description: str = "Done.") -> Json:
    return {
        "description": description,
        "headers": WITH_ID,
        "content": {"application/json": {"schema": ref(name)}},
    }


def json_or_events(name: str, events: str = "ResponseStreamEvent") -> Json:
    """The object, or a stream of `events`; the schema of such a stream is that of each event in it."""
    answer = json_answer(name, "The object; with `stream` its events.")
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": ref(events)}
    schema = record("One event.", {"data": either(data, always("[DONE]"))}, {"event": TEXT})
    answer["content"]["text/event-stream"] = {"schema": schema}
    return answer


def counted(answer: Json) -> Json:
    """A model's answer tells what the tenant's limits leave."""
    return {**answer, "headers": {**answer["headers"], **RATES}}


def linked(answer: Json, *targets: str, **parameters: str) -> Json:
    """With what it is good for: the parameters of other endpoints, each as a runtime expression."""
    return {**answer, "links": {target: {"operationId": target, "parameters": parameters} for target in targets}}


def json_body(name: str, examples: dict[str, Json], *, required: bool = True) -> Json:
    content = {"schema": ref(name), "examples": {title: {"value": value} for title, value in examples.items()}}
    return {"required": required, "content": {"application/json": content}}


def operation(
    tag: str,
    name: str,
    summary: str,
    answer: Json,
    *,
    body: Json | None = None,
    parameters: list[Json] | None = None,
    errors: tuple[int, ...] = (),
    description: str = "",
) -> Json:
    """An endpoint under /v1; `errors`: the statuses beside those that each one, or each one with a body, can meet."""
    failing = sorted({*errors, *ALWAYS, *((400, 413) if body else ())})
    return {
        "tags": [tag],
        "operationId": name,
        "summary": summary,
        **({"description": description} if description else {}),
        "parameters": parameters or [],
        **({"requestBody": body} if body else {}),
        "responses": {"200": answer, **answers(*failing)},
    }


def open_operation(tag: str, name: str, summary: str, media_type: str, schema: Json) -> Json:
    """One outside /v1, that asks for no key."""
    answer = {"description": "Done.", "headers": WITH_ID, "content": {media_type: {"schema": schema}}}
    return {"tags": [tag], "operationId": name, "summary": summary, "security": [], "responses": {"200": answer}}
