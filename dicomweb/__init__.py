"""The pure core: bytes and values in, values out; no clock, log, socket or file."""
