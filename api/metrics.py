"""The API's metrics: every name and its help, in this one place."""

import functools

from prometheus_client import Counter, Gauge, Histogram

TURNS = Counter(
    "chatbot_turns",
    "Turns ended, by the status of their response; unknown: it could not be written; handed_over: to another process.",
    ["status"],
)
TURN_SECONDS = Histogram("chatbot_turn_seconds", "From the begun turn to its end.")
REBUILDS = Counter("chatbot_history_rebuilds", "Conversations loaded from PostgreSQL because Redis had no hot copy.")
REQUESTS = Counter("chatbot_requests", "Requests to /v1 by the name of their API key.", ["tenant", "key"])
# Looking a labelled counter up costs five times as much as counting; there are as many as keys.
requests_of = functools.cache(REQUESTS.labels)
RATE_LIMITED = Counter(
    "chatbot_rate_limited", "Requests refused by a limit of their tenant: requests or tokens.", ["tenant", "limit"]
)
KEYS_FILE_SOUND = Gauge("chatbot_keys_file_sound", "0 while the keys file is wrong and the keys of before stay.")
KEYS_FILE_SOUND.set(1)
ORPHANS = Counter("chatbot_orphans_closed", "Responses of dead processes that this one closed.")
TAKEUPS = Counter("chatbot_responses_taken_up", "Responses of dead or ending processes that this one runs again.")
UPSTREAM_ATTEMPTS = Counter(
    "chatbot_upstream_attempts", "Questions sent to an upstream, repeated ones too.", ["upstream"]
)
UPSTREAM_ERRORS = Counter(
    "chatbot_upstream_errors", "Questions that an upstream did not answer, or not to the end.", ["upstream", "kind"]
)
UPSTREAM_RETRIES = Counter("chatbot_upstream_retries", "Questions sent again after a passing failure.", ["upstream"])
UPSTREAM_FALLBACKS = Counter(
    "chatbot_upstream_fallbacks", "Questions for which the next upstream was asked in the place of this.", ["upstream"]
)
UPSTREAM_BREAKER = Gauge(
    "chatbot_upstream_breaker", "0: closed; 2: open, the upstream is not asked; 1: one question tries it.", ["upstream"]
)
UPSTREAMS_FILE_SOUND = Gauge(
    "chatbot_upstreams_file_sound", "0 while the upstreams' file is wrong and what was read before stays."
)
UPSTREAMS_FILE_SOUND.set(1)
WEBSOCKETS = Gauge("chatbot_websockets", "Open WebSocket connections.")
