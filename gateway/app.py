"""Puts the application together: the routes, what surrounds them, and the fleet that they share."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from litestar import Litestar
from litestar.di import Provide

from gateway.api.access import Access
from gateway.api.chat_completions import chat_completions
from gateway.api.collective_rpc import collective_rpc
from gateway.api.completions import completions
from gateway.api.dashboard import dashboard_file, dashboard_page
from gateway.api.embeddings import embeddings
from gateway.api.errors import handle_exception
from gateway.api.events import get_events
from gateway.api.health import get_version, health, ready
from gateway.api.keys import KeyGuard
from gateway.api.metrics import get_metrics
from gateway.api.models import get_model, list_models
from gateway.api.openapi.serving import openapi_config
from gateway.api.pin import pin, unpin
from gateway.api.prefix_cache import reset_prefix_cache
from gateway.api.record import Records
from gateway.api.request_id import RequestIds
from gateway.api.sleep import is_sleeping, sleep, wake_up
from gateway.api.status import get_status
from gateway.api.tokenize import detokenize, tokenize, tokenizer_info
from gateway.api.transport import Transports
from gateway.config import ServerConfig
from gateway.fleet import Fleet
from gateway.metrics import Metrics


def create_app(fleet: Fleet) -> Litestar:
    """The ASGI application; it starts the fleet with itself and closes it at its end."""

    def server() -> ServerConfig:
        return fleet.config.server

    @asynccontextmanager
    async def fleet_runs(_: Litestar) -> AsyncGenerator[None]:
        await fleet.start()
        try:
            yield
        finally:
            await fleet.close()

    metrics = Metrics(fleet)
    app = Litestar(
        route_handlers=[
            chat_completions,
            completions,
            embeddings,
            list_models,
            get_model,
            tokenize,
            detokenize,
            tokenizer_info,
            sleep,
            wake_up,
            is_sleeping,
            pin,
            unpin,
            collective_rpc,
            reset_prefix_cache,
            health,
            ready,
            get_version,
            get_status,
            get_events,
            get_metrics,
            dashboard_page,
            dashboard_file,
        ],
        dependencies={
            "fleet": Provide(lambda: fleet, sync_to_thread=False),
            "server": Provide(server, sync_to_thread=False),
            "metrics": Provide(lambda: metrics, sync_to_thread=False),
        },
        guards=[KeyGuard(server)],
        exception_handlers={Exception: handle_exception},
        lifespan=[fleet_runs],
        request_max_body_size=server().max_body,
        openapi_config=openapi_config(),
        logging_config=None,
    )
    # Around the routing rather than a route's middleware, so that a 404 has passed them too.
    app.asgi_handler = Transports(RequestIds(Records(Access(app.asgi_handler, server), metrics)))
    return app
