"""Fixtures of the adapters' tests: the real engine, as the engine's own tests run it."""

from tests.engine.conftest import engine, fragile_engine, model, weights_home

__all__ = ["engine", "fragile_engine", "model", "weights_home"]
