"""Play a session for one page, in a thread and at the environment's speed."""

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

WAITING = 64  # messages of the page in the inbox, at most
BREATH = 0.001  # seconds between two steps, in which another session can compute
FILES = 2  # files that wait to be sent, at most
COMPUTING = threading.Lock()  # one session at a time: torch's random numbers and settings are global


class Outbox:
    """Holds the messages that wait to be sent to a page: a few files and errors, but only the newest view, so that a
    slow page skips steps."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """wake: called, by any thread, after a message was put in."""
        self.wake, self.lock = wake, threading.Lock()
        self.first: deque[bytes] = deque()
        self.newest: bytes | None = None

    def show(self, view: bytes) -> None:
        """Put in a view, in place of the one that waits."""
        with self.lock:
            self.newest = view
        self.wake()

    def send(self, message: bytes) -> bool:
        """Put in a message after those that wait. If too many wait, drop it and return False."""
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
    """Makes a session, plays it under the page's control until `close`, and closes it."""

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
        """End the session after the current step."""
        self.closing.set()
        self.tell(messages.Play(kind="play", on=False))  # a paused session waits for a message

    def run(self) -> None:
        """Play the session. Send an error that ends it, such as the environment's, to the page in one line."""
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
                gc.collect()  # environments and networks refer to each other

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
        """Make and send a file, which takes seconds. Other sessions go on."""
        name, content = as_file(session, kind)
        if not self.outbox.send(messages.pack({"kind": "file", "name": name}, [content])):
            self.outbox.show(messages.pack({"kind": "note", "text": "files wait to be sent; try again later"}))

    def _show(self, session: Session, keep: bool = True) -> None:
        self.outbox.show(shown.encode_view(session, session.view(keep)))


def interval(session: Session) -> float:
    """Return the seconds from one step to the next."""
    rate = session.reality.frames_per_second if session.reality else USUAL_RATE
    return 1 / (rate * session.speed)
