"""Protect the server: it answers only pages that it has served itself, to somebody who knows its address."""

import ipaddress
import secrets
from collections.abc import Collection
from typing import Any

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",  # the address holds the token
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Wraps an ASGI application. It answers 403 to a request, or to a WebSocket's handshake, without the token, for
    another host, or from another page.

    The token is the first part of the path. A browser sends the host of the address, so another name that points to
    this machine (DNS rebinding) is refused. It also sends the origin of a page that opens a WebSocket.
    """

    def __init__(self, app: Any, token: str, hosts: Collection[str] | None) -> None:
        """hosts: allowed values of the header Host, with the port; None: any IP address, for a server that listens on
        every interface."""
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass allowed requests on to the application, and refuse others. The arguments are ASGI's."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif not self.allows(scope):
            await _refuse(scope, send)
        elif scope["type"] == "websocket":
            await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, _with_headers(send))

    def allows(self, scope: Any) -> bool:
        """Return whether a request has the token, a known host and, for a WebSocket, the origin of our own page."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == "host"]
        origins = [value for name, value in headers if name == "origin"]
        token = scope["path"].split("/")[1] if scope["path"].startswith("/") else ""
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return False
        if len(hosts) != 1 or not self.is_own_host(hosts[0]):
            return False
        if scope["type"] == "websocket":
            return origins == [f"http://{hosts[0]}"]
        return scope["method"] in ("GET", "HEAD")

    def is_own_host(self, host: str) -> bool:
        """Return whether a header Host names this server."""
        if self.hosts is not None:
            return host in self.hosts
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name == "localhost"
        return True


async def _refuse(scope: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # before it is accepted: the handshake gets 403
        return
    text = b"forbidden: open the address that dreamer dream has printed\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def _with_headers(send: Any) -> Any:
    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            added_headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = message | {"headers": [*message.get("headers", []), *added_headers]}
        await send(message)

    return send_with_headers
