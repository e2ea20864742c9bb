"""A Durable engine for azure-functions-durable 1.7 orchestrators, on SQLite.

It speaks the classic out-of-process protocol: the orchestrator function gets the
whole history and answers with the whole list of its actions. It knows no application;
the host gives it something that calls functions (`localhost.extension.EngineSetup`).
"""

from localhost.durable.client import client_provider, close_client_session
from localhost.durable.hosting import open_engine

__all__ = ["client_provider", "close_client_session", "open_engine"]
