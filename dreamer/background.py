"""Evaluation in a process of its own, while learning goes on."""

import multiprocessing
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import closing, suppress

import torch
from tqdm import tqdm

from dreamer.checkpoint import copy_to_cpu
from dreamer.evaluation import build_evaluator

START_LIMIT = 120  # seconds until the process has its environment and has rendered a first frame
EPISODE_LIMIT = 600  # seconds
TRANSFER_LIMIT = 60  # seconds without progress of a message
GRACE = 5  # seconds to end in


class BackgroundEvaluator:
    """Does what an `Evaluator` does, with the same results, while the caller goes on.

    Its state is the environment's from before the evaluation under way, and that one as "pending", with its
    weights. A checkpoint holds it, the process is sent it, and if the process does not come up, ends or hangs,
    it is played here: a warning says so, and all later evaluations are played here, too.
    """

    def __init__(self, config, device):
        """Waits until the process is ready. Raises EnvError or ConfigError as `build_evaluator` does."""
        self.config, self.device = config, device
        self.here = None  # the Evaluator that takes over when the process is lost
        self.process = EvaluationProcess(config, device)
        try:
            self.state = self.process.receive(START_LIMIT)
        except ProcessLostError as error:
            self.take_over(error)
            self.state = self.here.state_dict()
        except BaseException:
            self.process.close()
            raise

    def start(self, weights, iteration, env_steps, episodes, film):
        """As `Evaluator.start`, but it returns at once."""
        pending = {"iteration": iteration, "env_steps": env_steps, "episodes": episodes, "film": film}
        self.load_state_dict({**self.state, "pending": pending | {"weights": copy_to_cpu(weights)}})

    def result(self, wait=True):
        """The evaluation that was started, once; None if there is none or, without `wait`, if it has not ended."""
        if "pending" not in self.state:
            return None
        if not self.here:
            left = max(0, self.deadline - time.monotonic())
            try:
                if left and not wait and not self.process.has_answered():
                    return None
                evaluation, self.state = self.process.receive(left)
                return evaluation
            except ProcessLostError as error:
                self.take_over(error)
        self.here.load_state_dict(self.state)
        self.state = self.here.state_dict()
        return self.here.result()

    def take_over(self, error):
        """Evaluate in this process from now on."""
        self.process.kill()
        self.here = build_evaluator(self.config, self.device)
        text = f"warning: the process that evaluates is lost: {error}; evaluations are played in line from now on"
        tqdm.write(text, file=sys.stderr)

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        """Go back to a state; an evaluation that was under way is started again."""
        self.state = state
        if "pending" in state and not self.here:
            self.deadline = time.monotonic() + EPISODE_LIMIT * state["pending"]["episodes"]
            try:
                self.process.send(state)
            except ProcessLostError as error:
                self.take_over(error)

    def close(self):
        self.process.close()
        if self.here:
            self.here.close()


class ProcessLostError(Exception):
    """The process has ended, or hangs. Its one line says why."""


class EvaluationProcess:
    """The process and the pipe to it, seen from its parent."""

    def __init__(self, config, device):
        context = multiprocessing.get_context("spawn")
        self.connection, its_connection = context.Pipe()
        arguments = its_connection, config, device, torch.get_num_threads()
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C, too, ends it through its parent
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, handler)
        its_connection.close()  # so that its end is noticed
        with socket.socket(fileno=os.dup(self.connection.fileno())) as channel:
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                channel.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", TRANSFER_LIMIT, 0))

    def send(self, message):
        try:
            self.connection.send_bytes(pickle.dumps(message))  # `send` would put tensors into shared memory
        except OSError as error:
            raise ProcessLostError(f"it takes no message ({error.strerror})") from None

    def has_answered(self):
        return self.connection.poll()

    def receive(self, seconds):
        """Its next answer. Raises ProcessLostError, also for the one line in which it says why it ends."""
        try:
            if not self.connection.poll(seconds):
                raise ProcessLostError("it did not answer in time")
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(GRACE)
            raise ProcessLostError(f"it ended (exit code {self.process.exitcode})") from None
        if isinstance(answer, str):
            raise ProcessLostError(answer)
        return answer

    def close(self):
        """End it, and its environment with it."""
        self.process.terminate()
        self.process.join(GRACE)
        self.kill()

    def kill(self):
        self.process.kill()
        self.process.join(GRACE)
        self.connection.close()


def serve(connection, config, device, threads):
    """What the process does: plays what it is sent, until it is told to end or its parent is gone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        with closing(build_evaluator(config, device)) as evaluator:
            connection.send(evaluator.state_dict())
            while True:
                evaluator.load_state_dict(pickle.loads(connection.recv_bytes()))
                connection.send((evaluator.result(), evaluator.state_dict()))
    except Exception as error:
        with suppress(OSError):  # nobody listens any more
            connection.send(f"{type(error).__name__}: {' '.join(str(error).split())}")


def end_with_parent():
    """A parent that is killed ends nothing by itself."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
