"""``GET /schema/openapi.json`` and ``GET /schema``, each made when it is first asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec
from litestar import Request, Response, Router
from litestar.enums import MediaType
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import License
from litestar.types import Method
from markupsafe import Markup, escape

from gateway.api.keys import OPEN
from gateway.api.openapi.document import describe
from gateway.errors import NotFound

_DESCRIPTION: Final = (
    "An OpenAI-compatible gateway for many language models on one machine: idle models sleep by themselves "
    "and wake on the next request. Unknown fields of a body are ignored, and null means the default. "
    "Keys are asked for where the configuration has some."
)
_PAGE: Final = Path(__file__).with_name("page.html")
_CODE: Final = re.compile(r"`+([^`]+)`+")
_HEADERS: Final = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}


def openapi_config() -> OpenAPIConfig:
    """For one application."""
    return OpenAPIConfig(
        title="Dormouse",
        version=version("dormouse"),
        description=_DESCRIPTION,
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        use_handler_docstrings=True,
        operation_id_creator=_operation_id,
        openapi_router=Router(
            "/schema",
            route_handlers=[],
            include_in_schema=False,
            opt=OPEN,
            after_request=_refuse_what_is_not_there,
            response_headers=_HEADERS,
        ),
        render_plugins=[
            _Once(_page, path="/", media_type=MediaType.HTML),
            _Once(msgspec.json.encode, path="/openapi.json", media_type=MediaType.JSON),
        ],
    )


class _Once(OpenAPIRenderPlugin):
    """What ``make`` makes of the document."""

    def __init__(self, make: Callable[[dict[str, Any]], bytes], *, path: str, media_type: MediaType) -> None:
        super().__init__(path=path, media_type=media_type)
        self._make = make
        self._made: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        if self._made is None:
            self._made = self._make(describe(request.app, openapi_schema))
        return self._made


def _page(document: dict[str, Any]) -> bytes:
    """Without scripts, and nothing in it comes from elsewhere."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.filters["code"] = _with_code
    return environment.from_string(_PAGE.read_text()).render(document).encode()


def _with_code(text: str) -> Markup:
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _operation_id(handler: HTTPRouteHandler, _method: Method, _path: list[Any]) -> str:
    return handler.handler_name


def _refuse_what_is_not_there(response: Response[Any]) -> Response[Any]:
    """As everywhere: Litestar has a page of its own for it."""
    if response.status_code == NotFound.status:
        raise NotFound("there is no such route")
    return response
