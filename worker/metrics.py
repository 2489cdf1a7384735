"""The worker's metrics. No label holds an id or a tenant."""

from prometheus_client import Counter, Gauge, Histogram

ENTRIES = Counter("chatbot_worker_entries", "Queue entries that PostgreSQL has committed, by kind", ["kind"])
BATCHES = Counter("chatbot_worker_batches", "Ranges of the queue that were stored and acknowledged")
BATCH_SECONDS = Histogram(
    "chatbot_worker_batch_seconds",
    "From the claim of a range to its acknowledgement",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
LAG_SECONDS = Histogram(
    "chatbot_worker_lag_seconds",
    "From the acknowledgement of the oldest entry of a range to its commit in PostgreSQL",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600, 3600),
)
DEPTH = Gauge("chatbot_worker_queue_depth", "Entries that PostgreSQL does not have yet, as of the last scrape")
DUPLICATES = Counter("chatbot_worker_duplicates", "Rows that were stored already when their range came again")
DEAD_LETTERS = Counter("chatbot_worker_dead_letters", "Entries that went to the table dead_letters")
TAKEOVERS = Counter("chatbot_worker_takeovers", "Ranges whose former holder did not acknowledge them")
LEASES_LOST = Counter(
    "chatbot_worker_leases_lost", "Leases that somebody else had taken over before their holder was done"
)
FAILURES = Counter("chatbot_worker_failures", "Tries to store a range that failed, by kind of failure", ["verdict"])
AWAY = Gauge("chatbot_worker_away", "1 while this worker can't use it", ["system"])
