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
from dreamer.tools.dream import messages, page_messages
from dreamer.tools.dream.saving import as_file
from dreamer.tools.dream.session import Session
from dreamer.training.film import USUAL_RATE

MAX_MESSAGES = 64  # of the page in the inbox
MIN_PAUSE = 0.001  # seconds between two steps, in which another session can compute
MAX_FILES = 2  # that wait to be sent
COMPUTE_LOCK = threading.Lock()  # one session at a time: torch's random numbers and settings are global


class Outbox:
    """Holds the messages that wait to be sent to a page: a few files and errors, but only the newest view, so that a
    slow page skips steps."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """wake: called, by any thread, after a message was put in."""
        self.wake, self.lock = wake, threading.Lock()
        self.messages: deque[bytes] = deque()
        self.newest_view: bytes | None = None

    def put_view(self, view: bytes) -> None:
        """Put in a view, in place of the one that waits."""
        with self.lock:
            self.newest_view = view
        self.wake()

    def put_message(self, message: bytes) -> bool:
        """Put in a message after those that wait. If too many wait, drop it and return False."""
        with self.lock:
            fits = len(self.messages) <= MAX_FILES
            if fits:
                self.messages.append(message)
        self.wake()
        return fits

    def take(self) -> bytes | None:
        """Return the message to be sent next; None if there is none."""
        with self.lock:
            if self.messages:
                return self.messages.popleft()
            view, self.newest_view = self.newest_view, None
            return view


class Player(threading.Thread):
    """Makes a session, plays it under the page's control until `close`, and closes it."""

    def __init__(self, make_session: Callable[[], Session], outbox: Outbox) -> None:
        super().__init__(name="dream", daemon=True)
        self.make_session, self.outbox = make_session, outbox
        self.inbox: queue.Queue[messages.Message] = queue.Queue(MAX_MESSAGES)
        self.closing = threading.Event()

    def receive(self, message: messages.Message) -> bool:
        """Put a message of the page into the inbox. Return False if too many wait."""
        try:
            self.inbox.put_nowait(message)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """End the session after the current step."""
        self.closing.set()
        self.receive(messages.Play(kind="play", on=False))  # a paused session waits for a message

    def run(self) -> None:
        """Play the session. Send an error that ends it, such as the environment's, to the page in one line."""
        session = None
        try:
            with COMPUTE_LOCK:
                session = self.make_session()
                self.outbox.put_message(messages.pack(page_messages.describe_session(session)))
                self._show(session)
            self._play(session)
        except Exception as error:  # whatever an environment raises; the server and other sessions go on
            line = one_line(error) or type(error).__name__
            tqdm.write(f"a session has ended: {line}", file=sys.stderr)
            self.outbox.put_message(messages.pack({"kind": "error", "text": line}))
        finally:
            with COMPUTE_LOCK:
                if session:
                    session.close()
                    del session
                gc.collect()  # environments and networks refer to each other

    def _play(self, session: Session) -> None:
        next_step_time = time.monotonic()
        while not self.closing.is_set():
            wait = max(MIN_PAUSE, next_step_time - time.monotonic()) if session.playing else None
            message = self._next(wait)
            if isinstance(message, messages.Save):
                self._save(session, message.format)
                continue
            with COMPUTE_LOCK:
                if message is not None:
                    self._show(session, keep=session.handle(message))
                elif session.playing:
                    session.advance()
                    self._show(session)
                    next_step_time = max(next_step_time + seconds_per_step(session), time.monotonic())

    def _next(self, timeout: float | None) -> messages.Message | None:
        """Return the page's next message; None if none comes within `timeout` seconds."""
        try:
            return self.inbox.get(timeout=timeout)
        except queue.Empty:
            return None

    def _save(self, session: Session, kind: str) -> None:
        """Make and send a file, which takes seconds. Other sessions go on."""
        name, content = as_file(session, kind)
        if not self.outbox.put_message(messages.pack({"kind": "file", "name": name}, [content])):
            self.outbox.put_view(messages.pack({"kind": "note", "text": "files wait to be sent; try again later"}))

    def _show(self, session: Session, keep: bool = True) -> None:
        self.outbox.put_view(page_messages.encode_view(session, session.view(keep)))


def seconds_per_step(session: Session) -> float:
    """Return the seconds from one step to the next."""
    frames_per_second = session.reality.frames_per_second if session.reality else USUAL_RATE
    return 1 / (frames_per_second * session.speed)
