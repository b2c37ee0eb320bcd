"""Make the updates of a training run: count how many are owed, fetch batches, and average metrics."""

import time
from collections.abc import Callable

import numpy as np
import torch

from dreamer import distributed
from dreamer.algorithms.algorithm import Algorithm
from dreamer.config.load import Config
from dreamer.replay.buffer import Batch, ReplayBuffer
from dreamer.replay.mapped import aligned_empty
from dreamer.training.compiling import compile_update
from dreamer.training.cuda_graph import CudaGraphed, pinned_empty, prefetch, to_device
from dreamer.training.data_parallel import NoProgress
from dreamer.training.metrics import Means, check_finite
from dreamer.training.progress import Progress


class Learner:
    """Makes gradient updates with batches from the replay, on a GPU by a CUDA graph.

    Updates are owed, as a rule with a fraction. Whole ones are made at once, the fraction is carried over.
    """

    def __init__(
        self, config: Config, device: torch.device, replay: ReplayBuffer, progress: Progress | NoProgress
    ) -> None:
        """config: the whole configuration, or a worker's share of it."""
        self.settings, self.fast_paths = config.parameters.dreamer, config.operation.fast_paths
        self.device, self.replay, self.progress = device, replay, progress
        self.compiles = config.operation.compile is True  # a `Run` decides where that is "auto"
        self.owed = 0.0
        self.made = torch.zeros((), dtype=torch.int64, device=device)
        self.algorithm: Algorithm | None = None  # that made the last update
        self.run_update: Callable  # the update of `algorithm`, as a CUDA graph if possible
        self.metrics, self.unreported, self.seconds = Means(), 0, 0.0  # of the updates since the last report

    def make_owed(self, algorithm: Algorithm) -> None:
        """Make the whole updates that are owed. A fraction of one is carried over."""
        updates = int(self.owed)
        self.owed -= updates
        self.make(algorithm, updates)

    def make(self, algorithm: Algorithm, updates: int) -> None:
        """Make gradient updates.

        Another thread draws the windows of the next update during this one, so they cannot depend on what this one
        writes. Latent states are read before each update, so it sees what the previous one has stored.
        """
        if not updates:
            return
        if algorithm is not self.algorithm:
            self.prepare(algorithm)
        started = time.perf_counter()
        for update, (starts, batch) in enumerate(prefetch(self.fetch, updates), 1):
            self.progress.set_activity(f"learning {update}/{updates}")
            metrics, latents = self.run_update(self.with_latents(starts, batch), self.made)
            self.made += 1
            self.metrics.add(metrics)
            if self.settings.replay_context:
                self.replay.write_latents(starts, latents)
        self.unreported += updates
        self.seconds += time.perf_counter() - started

    def prepare(self, algorithm: Algorithm) -> None:
        """Switch to the updates of an algorithm. Compile them if the run compiles."""
        if self.compiles:
            self.progress.set_activity("compiling")
            started = time.perf_counter()
            compile_update(algorithm, self.sample(np.random.default_rng(0)), self.made)
            self.progress.leave_out(time.perf_counter() - started)
        self.algorithm = algorithm
        self.run_update = CudaGraphed(algorithm.update, self.device) if self.fast_paths else algorithm.update

    def learn_from_step(self, algorithm: Algorithm, stored: int = 1) -> int:
        """Make the updates owed after one more step is stored. Until the replay holds a window, a step owes nothing.

        stored: 0 in a worker whose episode is over; it still makes the updates that the other workers' steps owe.
        Returns the number of steps that all workers have stored.
        """
        stored_by_all, all_hold_window = self.owe_for(stored)
        if all_hold_window:
            self.make_owed(algorithm)
            self.progress.set_activity("collecting")
        return stored_by_all

    def owe_for(self, stored: int) -> tuple[int, bool]:
        """Count the updates owed for newly stored steps. Until the replay holds a window, they owe nothing.

        Returns the number of steps that all workers have stored, and whether each worker's replay holds a window.
        """
        settings = self.settings
        holds_window = self.replay.longest_window() >= settings.batch_length
        stored_by_all, workers_with_window = distributed.total(stored, int(holds_window))
        if workers_with_window < distributed.count():
            return stored_by_all, False
        replayed_steps = stored_by_all / distributed.count() * settings.train_ratio
        self.owed += replayed_steps / (settings.batch_size * settings.batch_length)
        return stored_by_all, True

    def report(self, iteration: int) -> dict[str, float]:
        """Return the means over the updates since the last report, and over the workers; {} if there was none.

        Raises NotFiniteError, in all workers, if any is not finite.
        """
        if not self.unreported:
            return {}
        updates = self.unreported
        started = time.perf_counter()
        means = distributed.average(self.metrics.result())  # waits for the device
        seconds = self.seconds + time.perf_counter() - started
        self.unreported, self.seconds = 0, 0.0
        check_finite(means, iteration)
        return means | {"speed/updates_per_second": updates / seconds}

    def sample(self, random: np.random.Generator | None = None) -> Batch:
        """Return a batch of windows on the device, (B, T, ·), pixels as uint8; random: as in `ReplayBuffer.draw`."""
        return self.with_latents(*self.fetch(random))

    def fetch(self, random: np.random.Generator | None = None) -> tuple[np.ndarray, Batch]:
        """Return the numbers of the windows' first steps (B,), and the batch without latent states."""
        starts = self.replay.draw(self.settings.batch_size, self.settings.batch_length, random)
        allocate = pinned_empty if self.device.type == "cuda" else aligned_empty
        batch = self.replay.windows(starts, self.settings.batch_length, allocate)
        return starts, to_device(batch, self.device)

    def with_latents(self, starts: np.ndarray, batch: Batch) -> Batch:
        """Return the batch with the latent states that are stored now."""
        if not self.settings.replay_context:
            return batch
        return batch._replace(latent=to_device(self.replay.read_latents(starts), self.device))

    def restore_counts(self, owed: float, made: int) -> None:
        """Restore the numbers of updates owed and made. Call it after the algorithm's state is restored."""
        self.owed = owed
        self.made.fill_(made)
        self.algorithm = None  # a CUDA graph would use the optimisers' old tensors
