"""``GET /``: the dashboard, a page of static files that asks the API for all it shows.

The files are open to all; what they ask for is not.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from litestar import Response, get
from litestar.params import FromPath

from gateway.api.keys import OPEN
from gateway.errors import NotFound

_FILES: Final = Path(__file__).parent.parent / "dashboard"
_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@get("/", opt=OPEN, include_in_schema=False)
async def dashboard_page() -> Response[bytes]:
    return _file("index.html")


@get("/dashboard/{name:str}", opt=OPEN, include_in_schema=False)
async def dashboard_file(name: FromPath[str]) -> Response[bytes]:
    return _file(name)


def _file(name: str) -> Response[bytes]:
    content = _contents().get(name)
    if content is None:
        raise NotFound("there is no such route")
    return Response(content, media_type=_TYPES[Path(name).suffix], headers=_HEADERS)


@cache
def _contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in _FILES.iterdir() if path.suffix in _TYPES}
