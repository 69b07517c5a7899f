"""Upstreams: the transport they are reached by, one folder per wire dialect, and the catalogue of models."""
