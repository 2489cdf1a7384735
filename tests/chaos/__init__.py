"""The fault campaign: real processes, real signals, and a ledger of everything that was acknowledged (`make chaos`)."""
