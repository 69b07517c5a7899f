"""Fetches the images of a request for upstreams that take no addresses."""

from penstock.domain.errors import PenstockError
from penstock.providers.spec import Image


class ImageFetcher:
    """Fetches from public addresses only."""

    async def fetch(self, url: str, param: str) -> Image:
        """The image at a public address. Raises PenstockError image_unavailable."""
        raise PenstockError("image_unavailable", f"'{param}': send the image as a data URL.", param=param)
