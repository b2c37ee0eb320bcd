"""Start of the program, signals, and a standard error that cannot be written."""

import io
import os
import signal
import subprocess
import sys
from contextlib import closing

import pytest

from dreamer.config.load import CONFIGS
from dreamer.training import signals
from dreamer.training.checkpoint_file import checkpoints
from dreamer.training.progress import Progress
from dreamer.training.signals import STOPS, Lossy, check_python, ready, signals_deferred, status_of
from tests.programs import CONTEXT
from tests.test_main import QUICK, only_run

PROGRAM = [sys.executable, str(CONFIGS.parent / "main.py")]


@pytest.mark.parametrize("fault", [None, BrokenPipeError, OSError(28, "No space left")])
def test_lossy_stream_ignores_write_errors(fault, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", Lossy(stream))
    with closing(Progress(iterations=1)) as progress:
        for name in ("write", "flush"):
            if fault:
                monkeypatch.setattr(stream, name, lambda *arguments: (_ for _ in ()).throw(fault))
        progress.end_episode(5.0)
        progress.begin(1)
        progress.end(last=True)
        print("warning: of something", file=sys.stderr, flush=True)
    assert ("warning" in stream.getvalue() and "return 5.0" in stream.getvalue()) != bool(fault)


WARNED = ["--config", *QUICK, "parameters.plan2explore.num_ensemble=5"]


def remove_reader():
    """Replace standard error by a pipe that nobody reads."""
    reader, stream = os.pipe()
    os.close(reader)
    os.dup2(stream, 2)


def close_streams():
    """Close the standard streams, as if they had been closed before the program started."""
    for number, name in enumerate(("stdout", "stderr"), 1):
        os.close(number)
        setattr(sys, name, None)
        setattr(sys, f"__{name}__", None)


def run_program(folder, change_streams):
    """Change the standard streams and run the program. It prints a warning and a progress bar."""
    os.chdir(folder)
    change_streams()
    sys.argv = ["main.py", *WARNED]
    from dreamer.__main__ import main

    main()


@pytest.mark.parametrize("change_streams", [remove_reader, close_streams])
def test_run_survives_lost_streams(change_streams, tmp_path):
    process = CONTEXT.Process(target=run_program, args=(tmp_path, change_streams))
    process.start()
    process.join()
    assert process.exitcode == 0 and len(checkpoints(only_run(tmp_path))) == 1


def test_deferred_signal_is_raised_at_the_end_of_the_block(monkeypatch):
    """It is raised once, also if the block fails."""
    events = []
    for failing in (False, True):
        with pytest.raises(KeyboardInterrupt), signals_deferred():
            signal.raise_signal(signal.SIGINT)
            events.append("the rest")
            if failing:
                raise OSError
    assert events == ["the rest", "the rest"]
    with signals_deferred():
        events.append("nothing")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_stop_signals_raise_keyboard_interrupt_with_their_exit_status(stop, status, monkeypatch):
    before = {number: signal.getsignal(number) for number in STOPS}
    ready()
    assert before == {number: signal.getsignal(number) for number in STOPS}, (
        "other programs, such as notebooks, keep their handlers"
    )
    monkeypatch.setattr(signals, "_begun", True)
    try:
        ready()
        with pytest.raises(KeyboardInterrupt) as caught:
            signal.raise_signal(stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert status_of(caught.value) == status


def test_ctrl_c_during_imports_exits_silently(tmp_path):
    """A slow fake torch module keeps the import running. Nothing is printed."""
    (tmp_path / "torch.py").write_text("print(end='imports', flush=True); import time; time.sleep(60)")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([*PROGRAM, "--list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdout.read(len("imports")) == b"imports"
    process.send_signal(signal.SIGINT)
    output = process.communicate()
    assert process.returncode == 130 and output == (b"", b"")


@pytest.mark.parametrize("version, works", [((3, 9), False), ((3, 10), True), ((3, 13, 9), True), ((3, 14, 0), False)])
def test_unsupported_python_versions_are_refused(version, works, capsys):
    if works:
        check_python(version)
        return
    with pytest.raises(SystemExit) as caught:
        check_python(version)
    line = f"error: Python 3.10 to 3.13 is needed, not {version[0]}.{version[1]}\n"
    assert caught.value.code == 2 and capsys.readouterr().err == line


def test_ignored_ctrl_c_stays_ignored():
    """Shells ignore it for background jobs."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from dreamer.training import signals; "
    code += "signals.begin(); signals.ready(); signal.raise_signal(signal.SIGINT)"
    subprocess.run([sys.executable, "-c", code], cwd=CONFIGS.parent, check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system can")
def test_end_with_ends_a_process_with_its_parent():
    """Killing the parent ends the child; a child whose parent has already ended does not start."""
    child = "import os; from dreamer.training.signals import end_with; end_with({}); print('begun', flush=True); "
    child += "import time; time.sleep(60)"
    parent = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}.format(os.getpid())])"
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=CONFIGS.parent, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    process.kill()
    assert process.stdout.read() == b"", "the pipe closes when the child has ended"
    orphan = [sys.executable, "-c", child.format(1)]
    assert subprocess.run(orphan, cwd=CONFIGS.parent, capture_output=True).stdout == b""
