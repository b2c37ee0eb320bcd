"""Two data-parallel worker processes that call functions of the tests."""

import importlib
import multiprocessing
import os
import traceback
from datetime import timedelta
from unittest.mock import patch

import torch
import torch.distributed as dist


class TwoWorkers:
    """Call it with a module's function and arguments; it returns the results of both workers."""

    def __init__(self, folder):
        """folder: an empty folder for the file through which the workers connect."""
        context = multiprocessing.get_context("spawn")
        self.pipes, ends = zip(*(context.Pipe() for _ in range(2)), strict=True)
        self.processes = [
            context.Process(target=_serve, args=(rank, f"file://{folder}/store", end), daemon=True)
            for rank, end in enumerate(ends)
        ]
        for process in self.processes:
            process.start()

    def __call__(self, function, *arguments):
        self.start(function, *arguments)
        return self.results()

    def start(self, function, *arguments):
        """Let both workers call a function; `results` returns what it returns."""
        for pipe in self.pipes:
            pipe.send((function, arguments))

    def results(self):
        """Wait for both workers. Return their results."""
        results = [pipe.recv() if pipe.poll(300) else "no answer" for pipe in self.pipes]
        for result in results:
            assert not isinstance(result, str), result
        return [result for (result,) in results]

    def have_ended(self):
        """Return whether a worker has sent its result."""
        return any(pipe.poll() for pipe in self.pipes)

    def signal(self, number):
        """Send a signal to both workers."""
        for process in self.processes:
            os.kill(process.pid, number)

    def close(self):
        for process in self.processes:
            process.kill()
            process.join()


def _serve(rank, store, pipe):
    """Call functions until the process is killed. Send back (result,), or the traceback of what was raised."""
    with patch.dict(os.environ, TORCHELASTIC_RUN_ID="tests", LOCAL_WORLD_SIZE="2"):
        importlib.import_module("dreamer.training.program")  # from now on, printed commands call torchrun
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store, timedelta(seconds=300), world_size=2, rank=rank)
    while True:
        function, arguments = pipe.recv()
        try:
            pipe.send((function(*arguments),))
        except BaseException:
            pipe.send(traceback.format_exc())
