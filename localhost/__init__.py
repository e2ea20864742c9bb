"""A small host for Azure Functions apps: HTTP, timers, Durable; without Azure."""
