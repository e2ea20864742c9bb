"""Durable triggers: orchestrators, and activities that call one service each."""
