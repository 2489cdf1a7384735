"""`make bench`: both measurements, one after the other. Each module has a --help of its own."""

import asyncio

from bench import turns, worker_items


def main() -> None:
    asyncio.run(turns.main(clients=64, seconds=5.0, rounds=3, as_json=False))
    print()
    asyncio.run(worker_items.main(200_000, 3))


if __name__ == "__main__":
    main()
