"""The server as another program meets it: who may talk to it, and what a page that goes away leaves."""

import asyncio
import http.client
import socket
import threading
import time
from contextlib import contextmanager

import pytest

pytest.importorskip("starlette", reason="the extra dream is not installed")
pytest.importorskip("uvicorn", reason="the extra dream is not installed")
client = pytest.importorskip("websockets.sync.client", reason="the extra dream is not installed")

from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402

from dreamer.tools.dream.guard import Guard  # noqa: E402
from dreamer.tools.dream.messages import MAX_BYTES, pack, unpack  # noqa: E402
from dreamer.tools.dream.player import Outbox, Player  # noqa: E402
from dreamer.tools.dream.server import MAX_SESSIONS, Server, send_all  # noqa: E402
from tests.dream.untrained_agents import PIXELS, VECTOR, session  # noqa: E402

TOKEN = "a-token"
LONG = "environment.kwargs={length: 100000}"


@contextmanager
def serving(make=lambda: session("dreamer", VECTOR, LONG)):
    """A server in a thread of this process, until the end of the block."""
    server = Server(make, TOKEN)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.server.started:
            time.sleep(0.01)
        yield server
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive() and not server.players


def page(server, **changes):
    """A page's connection. changes: of what its browser sends."""
    given = {"host": f"127.0.0.1:{server.port}", "token": TOKEN, "origin": f"http://127.0.0.1:{server.port}"} | changes
    url = f"ws://{given['host']}/{given['token']}/session"
    connected = socket.create_connection(("127.0.0.1", server.port))
    return client.connect(url, sock=connected, origin=given["origin"], compression=None)


def get(server, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def wait_until(condition):
    """Wait until a condition holds, 60 seconds at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def next_view(connection):
    while True:
        header, content = unpack(connection.recv(timeout=60))
        if header["kind"] == "view":
            return header, content


def test_a_page_is_served_to_who_has_its_address():
    with serving() as server:
        status, headers, body = get(server, f"/{TOKEN}/")
        assert status == 200 and b"<canvas" in body
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        assert headers["Referrer-Policy"] == "no-referrer" and "Server" not in headers
        for name, kind in (("main.js", "javascript"), ("style.css", "text/css")):
            status, headers, _ = get(server, f"/{TOKEN}/{name}")
            assert status == 200 and kind in headers["Content-Type"]
        for path in ("/", "/main.js", "/other/", f"/{TOKEN}x/", f"//{TOKEN}/", f"/./{TOKEN}/"):
            assert get(server, path)[0] == 403
        for path in (f"/{TOKEN}/../server.py", f"/{TOKEN}/%2e%2e/server.py", f"/{TOKEN}/..%2fserver.py"):
            assert get(server, path)[0] in (403, 404)
        assert get(server, f"/{TOKEN}/", Host="attacker.example")[0] == 403
        assert get(server, f"/{TOKEN}/", Host=f"localhost:{server.port}")[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", f"/{TOKEN}/")
        assert connection.getresponse().status == 403


@pytest.mark.parametrize(
    "changes",
    [
        {"token": "another"},
        {"token": ""},
        {"origin": "http://attacker.example"},
        {"origin": "null"},
        {"origin": None},
        {"origin": "https://127.0.0.1"},
        {"host": "attacker.example"},
        {"host": "attacker.example", "origin": "http://attacker.example"},
    ],
)
def test_a_foreign_page_cannot_open_a_session(changes):
    with serving() as server:
        with pytest.raises(InvalidStatus, match="403"):
            page(server, **changes)
        assert not server.players


def test_names_that_a_server_on_every_interface_answers_to():
    guard = Guard(None, TOKEN, None)
    assert all(map(guard.is_own_host, ("192.168.1.7:80", "[fe80::1]:80", "localhost:80", "127.0.0.1")))
    assert not any(map(guard.is_own_host, ("attacker.example:80", "127.0.0.1.attacker.example", "", ":80")))


def test_a_session_is_played_and_leaves_nothing():
    made = []

    def make():
        made.append(session("dreamer", PIXELS))
        closed.append(False)
        made[-1].reality.full_env.close = lambda: closed.append(True)
        return made[-1]

    closed = []
    with serving(make) as server:
        with page(server) as connection:
            told, _ = unpack(connection.recv(timeout=60))
            assert told["kind"] == "beginning" and told["task"] == "tests.envs.toy:Toy-v0"
            first, pictures = next_view(connection)
            assert len(pictures) == sum(count * height * width * 3 for _, count, height, width in first["pictures"])
            connection.send('{"kind": "play", "on": false}')
            while first["playing"]:
                first, _ = next_view(connection)
            connection.send('{"kind": "step"}')
            assert next_view(connection)[0]["number"] == first["number"] + 1
            connection.send('{"kind": "save", "format": "npz"}')
            header, content = unpack(connection.recv(timeout=60))
            assert header == {"kind": "file", "name": "dream.npz"} and content[:2] == b"PK"
        wait_until(lambda: not server.players)
        assert closed[-1] and not any(isinstance(thread, Player) for thread in threading.enumerate())


@pytest.mark.parametrize("message", ['{"kind": "quit"}', "x" * (MAX_BYTES + 1), b"\x00"], ids=["kind", "long", "bytes"])
def test_what_no_page_sends_ends_its_session_alone(message):
    with serving() as server, page(server) as good:
        with page(server) as bad:
            next_view(bad)
            bad.send(message)
            with pytest.raises(ConnectionClosed):
                while True:
                    bad.recv(timeout=60)
        wait_until(lambda: len(server.players) == 1)
        number = next_view(good)[0]["number"]
        while next_view(good)[0]["number"] < number + 3:
            pass


def test_many_messages_are_handled_in_order_without_loss():
    with serving() as server, page(server) as connection:
        for _ in range(300):
            connection.send('{"kind": "speed", "factor": 2}')
        connection.send('{"kind": "dream", "count": 9}')
        while not next_view(connection)[0]["dreaming"]:
            pass


def test_two_pages_have_separate_sessions_and_a_fifth_is_refused():
    with serving() as server, page(server) as one, page(server) as other:
        for connection in (one, other):
            connection.send('{"kind": "play", "on": false}')
        one.send('{"kind": "dream", "count": 9}')
        views = []
        for connection in (one, other):
            view, _ = next_view(connection)
            while view["playing"] or (connection is one and not view["dreaming"]):
                view, _ = next_view(connection)
            views.append(view)
        assert len(views[0]["dream"]["predicted"]) == 9 and not views[1]["dreaming"]
        further = [page(server) for _ in range(MAX_SESSIONS - 2)]
        with page(server) as refused:
            assert "4 pages are open already" in unpack(refused.recv(timeout=60))[0]["text"]
        for connection in further:
            connection.close()


def fail():
    raise RuntimeError("no such\nworld")


def test_error_while_making_a_session_is_sent_to_the_page():
    with serving(fail) as server, page(server) as connection:
        assert unpack(connection.recv(timeout=60))[0] == {"kind": "error", "text": "no such world"}


class SlowPage:
    """Takes the first message at once, and the others when it is told to."""

    def __init__(self):
        self.got, self.reads = [], asyncio.Event()

    async def send_bytes(self, message):
        self.got.append(message)
        await self.reads.wait()


def test_slow_page_misses_steps_and_holds_no_memory():
    async def play():
        slow, something = SlowPage(), asyncio.Event()
        outbox = Outbox(something.set)
        sending = asyncio.create_task(send_all(slow, outbox, something))
        for number in range(1000):
            outbox.put_view(pack({"number": number}))
            await asyncio.sleep(0)
        files = [outbox.put_message(b"file") for _ in range(4)]
        slow.reads.set()
        await asyncio.sleep(0.01)
        sending.cancel()
        return slow.got, files

    got, files = asyncio.run(play())
    assert files == [True, True, True, False] and got[1:4] == [b"file"] * 3
    assert [unpack(message)[0]["number"] for message in (got[0], *got[4:])] == [0, 999]
