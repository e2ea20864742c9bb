"""The pure core: bytes and values in, values out. No clock, environment, log, socket or file."""
