"""Tests drive the service as its users do: real processes, real servers, an upstream on a socket."""
