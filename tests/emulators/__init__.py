"""Stand-ins for Azure services, for tests and development only."""
