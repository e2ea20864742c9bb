"""HTTP and timer triggers: the only code that sees requests and responses."""
