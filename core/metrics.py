"""The metrics that both processes have: every name and its help. docs/observability.md lists them all.

No label holds an id or anything that a client may choose: each has a few values, known from the settings or the code.
"""

import math
import platform

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram, Info

from core.version import VERSION

# They would double what is scraped; a process's start is in `process_start_time_seconds`.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # it lacks annotations

BUILD = Info("chatbot_build", "Which process this is, its version, and Python's.")
LOOP_LAG = Histogram(
    "chatbot_event_loop_lag_seconds",
    "By how much the event loop was late for a timer; measured twice a second.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
STORE_UP = Gauge("chatbot_store_up", "1 while this process can use it: redis, postgresql.", ["store"])
CONNECTIONS = Gauge(
    "chatbot_connections", "Connections in the process's pool of a store: used, idle.", ["store", "state"]
)
CONNECTIONS_LIMIT = Gauge("chatbot_connections_limit", "Connections that the pool of a store may have.", ["store"])

DEPTH = Gauge("chatbot_queue_depth", "Entries that PostgreSQL does not have yet; NaN while Redis can't be asked.")
OLDEST_AGE = Gauge(
    "chatbot_queue_oldest_entry_age_seconds",
    "Since the oldest entry of the queue was acknowledged; 0 when it is empty, NaN while Redis can't be asked.",
)
LEASES = Gauge(
    "chatbot_queue_leases",
    "Ranges of the queue that were claimed: held by a worker, or free: given back, or their time ran out.",
    ["state"],
)
FAILED_RANGES = Gauge("chatbot_queue_failed_ranges", "Ranges of the queue that at least one worker failed to store.")
DEAD_LETTERS = Gauge(
    "chatbot_dead_letters",
    "Entries that PostgreSQL could not take and that nobody has replayed or dropped yet; as PostgreSQL told last.",
)
LOST = Gauge(
    "chatbot_queue_lost_entries",
    "Acknowledged entries that were lost with Redis: PostgreSQL lacks them, and no process remembered them; as "
    "PostgreSQL told last.",
)
LOSSES = Counter("chatbot_queue_loss_events", "Times that this process found Redis without something acknowledged.")
EPOCHS = Counter("chatbot_queue_epochs", "Epochs that this process began because Redis was another one than before.")
PUT_BACK = Counter(
    "chatbot_queue_put_back_entries", "Entries that this process remembered, Redis lacked, and were put back."
)
REDIS_MEMORY = Gauge("chatbot_redis_memory_bytes", "What Redis uses of its memory; NaN while it can't be asked.")
REDIS_MEMORY_LIMIT = Gauge(
    "chatbot_redis_memory_limit_bytes", "Redis's `maxmemory`; 0: it has none, NaN while it can't be asked."
)
DURABILITY_VERIFIED = Gauge(
    "chatbot_redis_durability_verified",
    "1 when Redis was seen to sync every write before it acknowledges it; 0 when it may not, or can't be asked.",
)


# Nothing is known yet.
for store in ("redis", "postgresql"):
    STORE_UP.labels(store).set(0)
for gauge in (DEPTH, OLDEST_AGE, LEASES.labels("held"), LEASES.labels("free"), FAILED_RANGES):
    gauge.set(math.nan)
for gauge in (DEAD_LETTERS, LOST, REDIS_MEMORY, REDIS_MEMORY_LIMIT):
    gauge.set(math.nan)


def tell_build(component: str) -> None:
    """Once, by the process that this is."""
    BUILD.info({"component": component, "version": VERSION, "python": platform.python_version()})
