"""The API's metrics: every name and its help, in this one place."""

from prometheus_client import Counter, Histogram

TURNS = Counter("chatbot_turns", "Turns ended, by how the response ended.", ["status"])
TURN_SECONDS = Histogram("chatbot_turn_seconds", "From the begun turn to its end.", ["streamed"])
FIRST_PIECE_SECONDS = Histogram(
    "chatbot_first_piece_seconds", "From the begun turn to the first piece of the upstream's answer."
)
REBUILDS = Counter("chatbot_history_rebuilds", "Conversations loaded from PostgreSQL because Redis had no hot copy.")
ORPHANS = Counter("chatbot_orphans_closed", "Responses of dead processes that this one closed.")
