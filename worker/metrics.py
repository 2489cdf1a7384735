"""The worker's metrics beside those of core/metrics.py: every name and its help. docs/observability.md lists them."""

from prometheus_client import Counter, Histogram

STORED = Counter(
    "chatbot_worker_stored_entries",
    "Entries that PostgreSQL has committed: item, response, conversation, delete.",
    ["kind"],
)
BATCH_SECONDS = Histogram(
    "chatbot_worker_batch_duration_seconds",
    "From the claim of a range of the queue to its acknowledgement.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BATCH_ENTRIES = Histogram(
    "chatbot_worker_batch_entries",
    "Entries of a range that was stored and acknowledged.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
)
LAG_SECONDS = Histogram(
    "chatbot_worker_persistence_lag_seconds",
    "From the acknowledgement of the oldest entry of a range to its commit in PostgreSQL.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600, 3600),
)
DUPLICATES = Counter("chatbot_worker_duplicate_rows", "Rows that were stored already when their range came again.")
DEAD_LETTERS = Counter(
    "chatbot_worker_dead_letters",
    "Entries that this process wrote to the table dead_letters: unreadable, refused, or deadly to workers.",
)
REDELIVERIES = Counter("chatbot_worker_redeliveries", "Ranges claimed whose former holder did not acknowledge them.")
LEASES_LOST = Counter(
    "chatbot_worker_leases_lost", "Leases that somebody else had taken over before their holder was done."
)
FAILURES = Counter(
    "chatbot_worker_batch_failures",
    "Tries to store a range that failed and are repeated: configuration, transient, unexpected.",
    ["verdict"],
)
# A series that begins with its first failure shows no increase by it.
for kind in ("item", "response", "conversation", "delete"):
    STORED.labels(kind)
for verdict in ("configuration", "transient", "unexpected"):
    FAILURES.labels(verdict)
