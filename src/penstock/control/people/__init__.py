"""Operators: their changes, their JSON shapes, and how they sign in."""
