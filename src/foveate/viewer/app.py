"""The server: a page, its static files, and tiles by number; what it refuses, and how it is started."""

import asyncio
import ipaddress
import re
import secrets
import socket
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foveate.errors import ConfigError, ImageReadError
from foveate.viewer.page import STATIC, TileIndex, TileService, manifest, page
from foveate.viewer.scene import Scene

# Only this server's own files; data: and blob: are for pictures alone. The hash allows an empty style, see the page.
_EMPTY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {_EMPTY}; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


def guarded(app: ASGIApp) -> ASGIApp:
    """The application, refusing query strings, which nothing here takes, and with the headers on every answer."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if scope["type"] != "http":
            await app(scope, receive, send)
        elif scope["query_string"]:
            refusal = PlainTextResponse("this server takes no query strings", status_code=400)
            await refusal(scope, receive, send_guarded)
        else:
            await app(scope, receive, send_guarded)

    return answer


def allowed_hosts(host: str) -> list[str]:
    """Names under which the server answers.

    On loopback only its own: a page from elsewhere whose name is made to point here (DNS rebinding) is refused. On all
    interfaces any, as the names of the machine are not known.
    """
    if host in ("", "0.0.0.0", "::"):
        return ["*"]
    return list(dict.fromkeys([host.lower(), f"[{host}]", *_LOOPBACK])) if is_loopback(host) else [host, f"[{host}]"]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on this host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_TILE = re.compile(r"(\d{1,4})_files/(\d{1,2})/(\d{1,9})_(\d{1,9})\.(jpg|png)", re.ASCII)
_TYPES = {"jpg": "image/jpeg", "png": "image/png"}
_CLIENT_LEFT = 499


def make_app(scene: Scene, host: str = "127.0.0.1") -> Starlette:
    """The application that shows a scene.

    No address holds a path: tiles are named by the numbers of layer, level, column and row.
    """
    tiles = TileService(scene)
    # New for every start, so that a browser may keep tiles and yet never shows those of another image.
    token = secrets.token_hex(8)
    html = page(manifest(scene, f"tiles/{token}/"))
    endpoint = _TileEndpoint(tiles, token)

    async def show(request: Request) -> Response:
        return HTMLResponse(html, headers={"Cache-Control": "no-store"})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(tiles.close)

    return Starlette(
        routes=[
            Route("/", show),
            Route("/tiles/{token}/{name:path}", endpoint.answer),
            Mount("/static", StaticFiles(directory=str(STATIC))),
        ],
        middleware=[
            Middleware(guarded),
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
        layers, ending = self._tiles.scene.layers, found[5]
        layer, level, col, row = map(int, found.groups()[:4])
        if layer >= len(layers) or layers[layer].rendering.media != ending:
            return PlainTextResponse("no such layer", status_code=404)
        async with self._turns:
            # Panning quickly leaves many requests behind that nobody waits for.
            if await request.is_disconnected():
                return Response(status_code=_CLIENT_LEFT)
            return await self._made(layer, TileIndex(level, col, row), _TYPES[ending])

    async def _made(self, layer: int, index: TileIndex, media_type: str) -> Response:
        try:
            tile = await asyncio.wrap_future(self._tiles.submit(layer, index))
        except asyncio.CancelledError:  # the server ends
            return Response(status_code=_CLIENT_LEFT)
        except IndexError:
            return PlainTextResponse("no such tile", status_code=404)
        except ImageReadError:
            return PlainTextResponse("this part of the file cannot be read", status_code=500)
        return Response(tile, media_type=media_type, headers={"Cache-Control": "private, max-age=86400, immutable"})


def serve(
    scene: Scene,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    browser: bool = True,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Show a scene in the browser; returns when interrupted.

    Args:
        scene: what to show.
        host: address to listen on; on others than loopback, everyone who can reach it sees the scene.
        port: 0 takes a free one.
        browser: open the page in the user's browser.
        on_ready: told the address of the page.
    """
    config = uvicorn.Config(
        make_app(scene, host), log_level="warning", server_header=False, timeout_graceful_shutdown=2
    )
    with _listening(host, port) as listener:
        address = _address(host, listener.getsockname()[1])
        if on_ready is not None:
            on_ready(address)
        if browser:
            webbrowser.open(address)  # it waits for the answer: the socket listens already
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            return  # the usual way to end it; the server has closed everything by now


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error}; try --port 0, which takes a free one"
        ) from None


def _address(host: str, port: int) -> str:
    # All interfaces: this machine reaches itself by its own name.
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}/"
