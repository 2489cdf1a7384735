"""The API's metrics beside those of core/metrics.py: every name and its help. docs/observability.md lists them."""

import functools

from prometheus_client import Counter, Gauge, Histogram

# An answer may take as long as its model does.
ANSWER_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
TOKEN_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1)

REQUESTS = Counter(
    "chatbot_http_requests",
    "Requests answered, by the pattern of their path; other: there is no such path, or method.",
    ["route", "method", "status"],
)
REQUEST_SECONDS = Histogram(
    "chatbot_http_request_duration_seconds",
    "From a request's head to the last byte of its answer; of a stream, to its end. The class is 2xx, 4xx, 5xx.",
    ["route", "method", "status_class"],
    buckets=ANSWER_BUCKETS,
)
ERRORS = Counter("chatbot_http_errors", "Requests answered with an error, by its code.", ["code"])
# Looking a labelled counter up costs five times as much as counting; there are as many as the catalogue has codes.
errors_of = functools.cache(ERRORS.labels)
TENANT_REQUESTS = Counter("chatbot_tenant_requests", "Requests to /v1 by the name of their API key.", ["tenant", "key"])
# As many as keys.
tenant_requests_of = functools.cache(TENANT_REQUESTS.labels)
RATE_LIMITED = Counter(
    "chatbot_tenant_rate_limited", "Requests refused by a limit of their tenant: requests, tokens.", ["tenant", "limit"]
)
STREAMS = Gauge("chatbot_streams_open", "Answers that are streamed as server-sent events right now.")
WEBSOCKETS = Gauge("chatbot_websockets_open", "Open WebSocket connections.")

TURNS = Counter(
    "chatbot_turns",
    "Turns ended, by the status of their response; unknown: it could not be written; handed_over: to another process.",
    ["status"],
)
turns_of = functools.cache(TURNS.labels)
for status in ("completed", "incomplete", "failed", "cancelled", "unknown", "handed_over"):
    TURNS.labels(status)
TURNS_RUNNING = Gauge("chatbot_turns_running", "Turns that this process runs right now.")
TURN_SECONDS = Histogram(
    "chatbot_turn_duration_seconds", "From the begun turn to its end, all of its answer in it.", buckets=ANSWER_BUCKETS
)
BEGIN_SECONDS = Histogram(
    "chatbot_turn_begin_duration_seconds",
    "The first step of a stored turn: its lock and its history, loaded from PostgreSQL where Redis had none.",
    buckets=STEP_BUCKETS,
)
FINISH_SECONDS = Histogram(
    "chatbot_turn_finish_duration_seconds",
    "The last step of a stored turn: everything is queued and shown, and its lock is free.",
    buckets=STEP_BUCKETS,
)
FIRST_TOKEN_SECONDS = Histogram(
    "chatbot_time_to_first_token_seconds",
    "Streamed turns: from the request, once it is read, to the first piece of its answer.",
    ["model"],
    buckets=FIRST_TOKEN_BUCKETS,
)
TOKEN_SECONDS = Histogram(
    "chatbot_time_per_output_token_seconds",
    "Streamed turns: the time from the first piece to the last one, for each token after the first.",
    ["model"],
    buckets=TOKEN_BUCKETS,
)
TOKENS = Counter(
    "chatbot_tokens",
    "Tokens of the turns that ended: input, input_cached, input_cache_written, output, output_reasoning. "
    "No token counts twice.",
    ["model", "kind"],
)
LOCKS_REFUSED = Counter("chatbot_locks_refused", "Turns refused because another one runs in their conversation.")
REPLAYS = Counter("chatbot_idempotent_replays", "Requests answered with what their Idempotency-Key had led to before.")
HISTORY_READS = Counter(
    "chatbot_history_reads",
    "Histories that stored turns began with: hit, or miss when Redis had no hot copy.",
    ["outcome"],
)
# Looking a labelled counter up costs more than counting.
HISTORY_HITS, HISTORY_MISSES = HISTORY_READS.labels("hit"), HISTORY_READS.labels("miss")
REBUILDS = Counter("chatbot_history_rebuilds", "Conversations loaded from PostgreSQL because Redis had no hot copy.")
ENQUEUED = Counter("chatbot_queue_enqueued_entries", "Entries that this process has put into the queue.")
QUEUE_LIMIT = Gauge("chatbot_queue_limit_entries", "At this depth new turns are refused (`QUEUE_LIMIT`).")
ORPHANS = Counter("chatbot_orphans_closed", "Responses of dead processes that this one closed.")
TAKEUPS = Counter("chatbot_responses_taken_up", "Responses of dead or ending processes that this one runs again.")

UPSTREAM_ATTEMPTS = Counter(
    "chatbot_upstream_attempts", "Questions sent to an upstream, repeated ones too.", ["upstream"]
)
UPSTREAM_SECONDS = Histogram(
    "chatbot_upstream_wait_seconds",
    "From a question to the first piece of its answer, or to all of it when it is not streamed.",
    ["upstream"],
    buckets=ANSWER_BUCKETS,
)
UPSTREAM_ERRORS = Counter(
    "chatbot_upstream_errors", "Questions that an upstream did not answer, or not to the end.", ["upstream", "kind"]
)
UPSTREAM_RETRIES = Counter("chatbot_upstream_retries", "Questions sent again after a passing failure.", ["upstream"])
UPSTREAM_FALLBACKS = Counter(
    "chatbot_upstream_fallbacks", "Questions for which the next upstream was asked in the place of this.", ["upstream"]
)
UPSTREAM_BREAKER = Gauge(
    "chatbot_upstream_breaker_state",
    "0: closed; 2: open, the upstream is not asked; 1: half-open, one question tries it, or may.",
    ["upstream"],
)
KEYS_FILE_SOUND = Gauge("chatbot_keys_file_sound", "0 while the keys file is wrong and the keys of before stay.")
KEYS_FILE_SOUND.set(1)
UPSTREAMS_FILE_SOUND = Gauge(
    "chatbot_upstreams_file_sound", "0 while the upstreams' file is wrong and what was read before stays."
)
UPSTREAMS_FILE_SOUND.set(1)
