"""The server's application: a page, its static files, and tiles by number."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from foveate.errors import ImageReadError
from foveate.viewer.grid import TileIndex
from foveate.viewer.manifest import manifest
from foveate.viewer.page import STATIC, page
from foveate.viewer.scene import Scene
from foveate.viewer.security import Guard, allowed_hosts
from foveate.viewer.tiles import TileService

_TILE = re.compile(r"(\d{1,4})_files/(\d{1,2})/(\d{1,9})_(\d{1,9})\.(jpg|png)", re.ASCII)
_TYPES = {"jpg": "image/jpeg", "png": "image/png"}
_CLIENT_LEFT = 499


def make_app(scene: Scene, host: str = "127.0.0.1", service: TileService | None = None) -> Starlette:
    """The application that shows a scene.

    No address holds a path: tiles are named by the numbers of layer, level, column and row.

    Args:
        scene: what to show.
        host: that it is served on; decides which names it answers to.
        service: makes the tiles; closed when the application ends.
    """
    tiles = service or TileService(scene)
    # New for every start, so that a browser may keep tiles and yet never shows those of another image.
    token = secrets.token_hex(8)
    html = page(manifest(scene, f"tiles/{token}/"))
    endpoint = _TileEndpoint(tiles, token)

    async def show(request: Request) -> Response:
        del request
        return HTMLResponse(html, headers={"Cache-Control": "no-store"})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        yield
        await asyncio.to_thread(tiles.close)

    return Starlette(
        routes=[
            Route("/", show),
            Route("/tiles/{token}/{name:path}", endpoint.answer),
            Mount("/static", StaticFiles(directory=str(STATIC))),
        ],
        middleware=[
            Middleware(Guard),
            Middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(host), www_redirect=False),
        ],
        lifespan=lifespan,
    )


class _TileEndpoint:
    def __init__(self, tiles: TileService, token: str) -> None:
        self._tiles = tiles
        self._token = token
        self._turns = asyncio.Semaphore(2 * tiles.threads)

    async def answer(self, request: Request) -> Response:
        found = _TILE.fullmatch(request.path_params["name"])
        if found is None or request.path_params["token"] != self._token:
            return PlainTextResponse("no such tile", status_code=404)
        layer, level, col, row = map(int, found.groups()[:4])
        return await self._tile(request, layer, TileIndex(level, col, row), found[5])

    async def _tile(self, request: Request, layer: int, index: TileIndex, ending: str) -> Response:
        layers = self._tiles.scene.layers
        if layer >= len(layers) or layers[layer].rendering.media != ending:
            return PlainTextResponse("no such layer", status_code=404)
        async with self._turns:
            # Panning quickly leaves many requests behind that nobody waits for.
            if await request.is_disconnected():
                return Response(status_code=_CLIENT_LEFT)
            try:
                tile = await asyncio.wrap_future(self._tiles.submit(layer, index))
            except IndexError:
                return PlainTextResponse("no such tile", status_code=404)
            except ImageReadError:
                return PlainTextResponse("this part of the file cannot be read", status_code=500)
        return Response(tile, media_type=_TYPES[ending], headers={"Cache-Control": "private, max-age=86400, immutable"})
