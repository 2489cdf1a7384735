"""Measures what docs/benchmarks.md shows: this service beside a bare relay, the worker beside bare COPY, in one run."""
