"""The catalogue of this installation: the providers with their credentials found, and the models that they serve."""

from penstock.providers.catalogue.build import LocalModel, build_catalogue, replaced_ids, specs
from penstock.providers.catalogue.resolve import CatalogueError, Provider, limits_of, resolve_providers

__all__ = [
    "CatalogueError",
    "LocalModel",
    "Provider",
    "build_catalogue",
    "limits_of",
    "replaced_ids",
    "resolve_providers",
    "specs",
]
