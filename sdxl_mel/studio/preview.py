"""Previews as the page of the studio shows them."""

import base64
import io

from PIL import Image


def data_url(picture: Image.Image) -> str:
    """Return a picture as a data: URL."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
