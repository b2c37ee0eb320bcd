"""Serve the page: static files, and for each open page a WebSocket with its own session."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from dreamer.tools.dream import messages
from dreamer.tools.dream.guard import Guard
from dreamer.tools.dream.player import Outbox, Player
from dreamer.tools.dream.session import Session

PAGE = Path(__file__).with_name("page")
MAX_SESSIONS = 4  # open pages at a time: each has its own environment and agent
LOOPBACK = "127.0.0.1"
ALL_INTERFACES = "0.0.0.0", "::"
RETRY_SECONDS = 0.02  # until the next attempt to pass a message to a session whose inbox is full
CLOSE_SECONDS = 10  # to wait for a session whose page has gone


class Server:
    """Serves the page under a token, and plays a session for each page that is open."""

    def __init__(self, make_session: Callable[[], Session], token: str, host: str = LOOPBACK, port: int = 0) -> None:
        """make_session: called in the session's thread. port: 0 for a free one. Raises OSError."""
        self.make_session, self.token = make_session, token
        self.players: set[Player] = set()
        self.socket = _listen(host, port)
        self.host, self.port = host, self.socket.getsockname()[1]
        routes = [WebSocketRoute("/session", self.play), Mount("/", StaticFiles(directory=PAGE, html=True))]
        app = Guard(Starlette(routes=[Mount(f"/{token}", routes=routes)]), token, allowed_hosts(host, self.port))
        self.server = uvicorn.Server(_make_config(app))

    @property
    def address(self) -> str:
        """The address of the page, with the token."""
        host = LOOPBACK if self.host in ALL_INTERFACES else self.host
        return f"http://{with_port(host, self.port)}/{self.token}/"

    def run(self) -> None:
        """Serve until the process is interrupted or `stop` is called."""
        self.server.run(sockets=[self.socket])

    def stop(self) -> None:
        """Let `run` return."""
        self.server.should_exit = True

    async def play(self, websocket: WebSocket) -> None:
        """Play a session for one page until it goes away."""
        await websocket.accept()
        if len(self.players) >= MAX_SESSIONS:
            text = f"{MAX_SESSIONS} pages are open already: close one of them, and reload this one"
            await websocket.send_bytes(messages.pack({"kind": "error", "text": text}))
            await websocket.close()
            return
        loop, has_message = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it the page
                loop.call_soon_threadsafe(has_message.set)

        player = Player(self.make_session, Outbox(wake))
        self.players.add(player)
        player.start()
        sending = asyncio.create_task(send_all(websocket, player.outbox, has_message))
        try:
            await _receive(websocket, player)
        finally:
            sending.cancel()
            player.close()
            await asyncio.to_thread(player.join, CLOSE_SECONDS)
            self.players.discard(player)


async def send_all(websocket: WebSocket, outbox: Outbox, has_message: asyncio.Event) -> None:
    """Send the messages of an outbox, one after the other. has_message: set when the outbox has a message."""
    with suppress(WebSocketDisconnect, RuntimeError):  # the page has gone: `_receive` sees it
        while True:
            await has_message.wait()
            has_message.clear()
            while (message := outbox.take()) is not None:
                await websocket.send_bytes(message)


async def _receive(websocket: WebSocket, player: Player) -> None:
    """Pass on the messages of a page, until it closes or sends a message that is not valid."""
    with suppress(WebSocketDisconnect):
        while True:
            received = await websocket.receive()
            if received["type"] == "websocket.disconnect":
                return
            try:
                message = messages.read(received.get("text") or "")
            except messages.MessageError as error:
                await websocket.close(1008, str(error)[:100])
                return
            while not player.receive(message) and player.is_alive():
                await asyncio.sleep(RETRY_SECONDS)  # reading no more lets the page wait, too


def allowed_hosts(host: str, port: int) -> set[str] | None:
    """Return the allowed values of the header Host, for `Guard`; None: any IP address."""
    if host in ALL_INTERFACES:
        return None
    names = {host, "localhost"} if host == LOOPBACK else {host}
    hosts = {with_port(name, port) for name in names}
    if port == 80:  # browsers leave it out
        hosts |= names
    return hosts


def with_port(host: str, port: int) -> str:
    """Return a host with its port, in the form of an address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _make_config(app: Guard) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        log_level="error",
        server_header=False,
        proxy_headers=False,
        ws_per_message_deflate=False,  # on one machine compression only takes time
        ws_max_size=messages.MAX_BYTES,
        ws_max_queue=4,
        limit_concurrency=32,
        h11_max_incomplete_event_size=2**14,
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises OSError, in one line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(f"--host {host} --port {port}: {error.strerror or error}; take another one") from None
