"""The data plane: stateless workers that serve /v1/*. One request is one straight line (pipeline.py)."""
