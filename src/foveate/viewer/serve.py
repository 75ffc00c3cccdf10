"""Serve a scene until interrupted."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable

import uvicorn

from foveate.errors import ConfigError
from foveate.viewer.app import make_app
from foveate.viewer.scene import Scene


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

    Raises:
        ConfigError: when the address cannot be listened on.
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
