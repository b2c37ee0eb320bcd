"""Read the curves of a run, from metrics.jsonl or from TensorBoard's files."""

from pathlib import Path

from dreamer.training.metrics_file import read_metrics

Curves = dict[str, dict[int, float]]  # by tag: {env steps: value}


def read_curves(folder: Path) -> Curves:
    """Return the curves of a run, from metrics.jsonl if it begins with the run, else from TensorBoard's files, which
    take longer to read."""
    reports = read_metrics(folder)
    curves: Curves = {}
    if reports and reports[0].get("iteration") == 0:
        for report in reports:
            for tag in report.keys() - {"iteration", "env_steps"}:
                curves.setdefault(tag, {})[report["env_steps"]] = report[tag]
        return curves
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # late: it takes a second

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1, "tensors": 1}).Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
