"""What the server does: one module per transaction or operation; no Azure, no HTTP."""
