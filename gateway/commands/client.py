"""The HTTP side of the client verbs. Whatever goes wrong is a CommandError of one line."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from gateway.commands import CommandError

LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Unreachable(CommandError):
    """No gateway there, or it has gone while it answered; it may come back."""


class Client:
    """A gateway at its URL."""

    def __init__(self, args: Namespace, *, timeout: float | None = None) -> None:
        self.url = args.url if "://" in args.url else f"http://{args.url}"
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise CommandError(f"{self.url}: {error}") from None
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {args.api_key}"} if args.api_key else {},
            timeout=timeout or httpx.Timeout(10, read=None),
            trust_env=url.host not in LOOPBACK,
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        with self._errors():
            return _checked(self._http.get(path)).json()

    def post(self, path: str, **parameters: str | int | None) -> Any:
        given = {key: value for key, value in parameters.items() if value is not None}
        with self._errors():
            return _checked(self._http.post(path, params=given)).json()

    def model_id(self, name: str) -> str:
        """The name of the model that may be called by an alias."""
        return str(self.get(f"/v1/models/{quote(name, safe='', errors='surrogateescape')}")["id"])

    def status_of(self, name: str) -> dict[str, Any]:
        """What /api/status tells of a model, by its name or an alias."""
        models: list[dict[str, Any]] = self.get("/api/status")["models"]
        for model in models:
            if name in (model["name"], *model["aliases"]):
                return model
        raise CommandError(f"{name} is not served any more")

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Iterator[str]]:
        """The lines of the answer, as they come."""
        with self._errors(), self._http.stream(method, path, json=body, headers=headers) as response:
            if response.is_error:
                response.read()
            yield _checked(response).iter_lines()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError:
            raise Unreachable(
                f"nothing answers at {self.url}: start the gateway with `dormouse serve`, or say where it is "
                "with --url or DORMOUSE_URL",
                code="unreachable",
            ) from None
        except UnicodeEncodeError:
            raise CommandError("what is to be sent is not UTF-8") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            kind = Unreachable if isinstance(error, httpx.TransportError) else CommandError
            raise kind(f"{self.url}: {str(error) or type(error).__name__}") from None


def refusal(error: dict[str, Any], hint: str = "") -> CommandError:
    """What the gateway's error object says."""
    told = {key: error[key] for key in ("type", "param", "code") if key in error}
    return CommandError(f"{error['message']}{hint}", **told)


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise _refusal(response)
    return response


def _refusal(response: httpx.Response) -> CommandError:
    hint = " (--api-key or DORMOUSE_API_KEY)" if response.status_code == 401 else ""
    try:
        return refusal(response.json()["error"], hint)
    except (ValueError, LookupError, TypeError):
        return CommandError(f"HTTP {response.status_code} {response.reason_phrase}{hint}")
