"""Plays a session in a thread of its own, at the environment's speed, for one page."""

import gc
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from tqdm import tqdm

from dreamer.errors import one_line
from dreamer.tools.dream import messages, shown
from dreamer.tools.dream.saving import as_file
from dreamer.tools.dream.session import Session
from dreamer.training.film import USUAL_RATE

WAITING = 64  # messages of the page that wait, at most
BREATH = 0.001  # seconds between two steps, in which another session can take its turn
FILES = 2  # files that wait to be sent, at most
COMPUTING = threading.Lock()  # torch's random numbers and settings, and those of environments, are the process's own


class Outbox:
    """Holds what waits to be sent to a page: the newest view alone, so that a slow page misses steps, and a few other
    messages."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """wake: called, by any thread, when something has come."""
        self.wake, self.lock = wake, threading.Lock()
        self.first: deque[bytes] = deque()
        self.newest: bytes | None = None

    def show(self, view: bytes) -> None:
        """Put a view in the place of the one that waits."""
        with self.lock:
            self.newest = view
        self.wake()

    def send(self, message: bytes) -> bool:
        """Put a message behind those that wait. Return False, and drop it, if there are too many."""
        with self.lock:
            fits = len(self.first) <= FILES
            if fits:
                self.first.append(message)
        self.wake()
        return fits

    def take(self) -> bytes | None:
        """Return the message to be sent next; None if there is none."""
        with self.lock:
            if self.first:
                return self.first.popleft()
            view, self.newest = self.newest, None
            return view


class Player(threading.Thread):
    """Makes a session, plays it as the page says until `close`, and closes it."""

    def __init__(self, make_session: Callable[[], Session], outbox: Outbox) -> None:
        super().__init__(name="dream", daemon=True)
        self.make_session, self.outbox = make_session, outbox
        self.inbox: queue.Queue[messages.Message] = queue.Queue(WAITING)
        self.closing = threading.Event()

    def tell(self, message: messages.Message) -> bool:
        """Pass on a message of the page. Return False if too many wait."""
        try:
            self.inbox.put_nowait(message)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """End the session as soon as the step under way is made."""
        self.closing.set()
        self.tell(messages.Play(kind="play", on=False))  # it waits for a message if it is paused

    def run(self) -> None:
        """Play. What ends a session, such as an error of the environment, is told to the page in one line."""
        session = None
        try:
            with COMPUTING:
                session = self.make_session()
                self.outbox.send(messages.pack(shown.describe_session(session)))
                self._show(session)
            self._play(session)
        except Exception as error:  # whatever an environment raises; the server and other sessions go on
            line = one_line(error) or type(error).__name__
            tqdm.write(f"a session has ended: {line}", file=sys.stderr)
            self.outbox.send(messages.pack({"kind": "error", "text": line}))
        finally:
            with COMPUTING:
                if session:
                    session.close()
                    del session
                gc.collect()  # environments and networks hold each other

    def _play(self, session: Session) -> None:
        due = time.monotonic()
        while not self.closing.is_set():
            wait = max(BREATH, due - time.monotonic()) if session.playing else None
            message = self._next(wait)
            if isinstance(message, messages.Save):
                self._save(session, message.format)
                continue
            with COMPUTING:
                if message is not None:
                    self._show(session, keep=session.handle(message))
                elif session.playing:
                    session.advance()
                    self._show(session)
                    due = max(due + interval(session), time.monotonic())

    def _next(self, wait: float | None) -> messages.Message | None:
        """Return the page's next message; None if none comes within `wait` seconds."""
        try:
            return self.inbox.get(timeout=wait)
        except queue.Empty:
            return None

    def _save(self, session: Session, kind: str) -> None:
        """Send a file. It takes seconds, in which other sessions go on."""
        name, content = as_file(session, kind)
        if not self.outbox.send(messages.pack({"kind": "file", "name": name}, [content])):
            self.outbox.show(messages.pack({"kind": "note", "text": "files wait to be sent; try again later"}))

    def _show(self, session: Session, keep: bool = True) -> None:
        self.outbox.show(shown.encode_view(session, session.view(keep)))


def interval(session: Session) -> float:
    """Return the seconds from one step to the next."""
    rate = session.reality.frames_per_second if session.reality else USUAL_RATE
    return 1 / (rate * session.speed)
