"""A strict emulator of Cosmos DB for NoSQL over SQLite."""
