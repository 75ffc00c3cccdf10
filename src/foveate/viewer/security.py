"""What the server refuses and what it tells browsers to refuse."""

from __future__ import annotations

import ipaddress

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


class Guard:
    """Refuses query strings, which nothing here takes, and adds the headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if scope["query_string"]:
            refusal = PlainTextResponse("this server takes no query strings", status_code=400)
            await refusal(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


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
