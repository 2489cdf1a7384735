"""The service in front of llama.cpp's own server, which real users run: `make test-llama`."""
