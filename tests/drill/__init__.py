"""`make alerts`: a real Prometheus shows every panel with a value, and every alert is made to fire and to end."""
