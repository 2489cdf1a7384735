"""The API's metrics: every name and its help, in this one place."""

from prometheus_client import Counter, Gauge, Histogram

TURNS = Counter(
    "chatbot_turns",
    "Turns ended, by the status of their response; unknown: it could not be written; handed_over: to another process.",
    ["status"],
)
TURN_SECONDS = Histogram("chatbot_turn_seconds", "From the begun turn to its end.")
REBUILDS = Counter("chatbot_history_rebuilds", "Conversations loaded from PostgreSQL because Redis had no hot copy.")
REQUESTS = Counter("chatbot_requests", "Requests to /v1 by the name of their API key.", ["tenant", "key"])
KEYS_FILE_SOUND = Gauge("chatbot_keys_file_sound", "0 while the keys file is wrong and the keys of before stay.")
KEYS_FILE_SOUND.set(1)
ORPHANS = Counter("chatbot_orphans_closed", "Responses of dead processes that this one closed.")
TAKEUPS = Counter("chatbot_responses_taken_up", "Responses of dead or ending processes that this one runs again.")
