import importlib
import subprocess
import sys

import pytest

from dreamer.config.load import CONFIGS, load_config
from dreamer.config.names import tasks_of
from dreamer.tools import commands, execute
from dreamer.tools.command_line import parse_arguments, parse_evaluation, parse_listing, parse_playing, parse_training
from dreamer.tools.commands import COMMANDS


def test_config_and_overrides():
    options = parse_arguments(["--config", "dmc-walker-walk", "operation.seed=1", "parameters.dreamer.batch_size=16"])
    assert options.config == ["dmc-walker-walk"]
    assert options.overrides == ["operation.seed=1", "parameters.dreamer.batch_size=16"]
    assert parse_arguments(["operation.seed=1", "--config", "x"]).overrides == ["operation.seed=1"]
    assert parse_arguments(["--config", "x"]).overrides == []
    several = parse_arguments(["--config", "dmc-walker-walk", "dreamer-v3", "size1m", "operation.seed=1"])
    assert several.config == ["dmc-walker-walk", "dreamer-v3", "size1m"] and several.overrides == ["operation.seed=1"]


def test_folder_option_and_overrides():
    options = parse_arguments(["k=3", "--config", "x", "y", "k=1", "--folder", "runs/a=b", "k=2"])
    assert (options.config, options.folder) == (["x", "y"], "runs/a=b")
    assert options.overrides == ["k=3", "k=1", "k=2"], "the last one counts"


def test_env_option_sets_benchmark_and_task():
    """Overrides have priority over it."""
    options = parse_arguments(["--config", "quick-v3", "environment.frame_skip=2", "--env", "my_package:ns/Reach-v0"])
    config = load_config(options.config, options.overrides)
    environment = config.environment
    assert (environment.benchmark, environment.task_name) == ("gymnasium", "my_package:ns/Reach-v0")
    assert not environment.from_pixels and environment.frame_skip == 2
    assert config.operation.log_dir == "ns-Reach-v0"


@pytest.mark.parametrize("arguments", [["--resume", "latest", "--env", "X-v0"], ["--config", "quick-v3", "--env", ""]])
def test_env_option_combines_with_a_configuration(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(arguments)
    line = "error: --env names an environment, and goes with --config, such as --config quick-v3; --help tells more\n"
    assert caught.value.code == 2 and capsys.readouterr().err == line


def test_override_in_place_of_a_configuration_is_an_error(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--config", "operation.seed=1"])
    assert capsys.readouterr().err.startswith("error: --config: expected a name before any key=value")


def test_help_lists_every_configuration(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert {path.stem for path in CONFIGS.glob("*.yml")} <= {line.strip() for line in text.splitlines()}
    assert all(task.removeprefix("dmc-") in text for task in tasks_of("dmc"))
    assert all(word in text for word in ("--config", "key=value", "tensorboard", "configs/dreamer.yml"))


def test_resume_arguments():
    options = parse_arguments(["--resume", "latest", "parameters.dreamer.train_iterations=20"])
    assert options.resume == "latest" and options.overrides == ["parameters.dreamer.train_iterations=20"]
    assert options.config is options.evaluate is None


def test_evaluate_arguments():
    options = parse_arguments(["--evaluate", "some/run"])
    assert options.config is options.resume is None
    assert (options.evaluate, options.episodes, options.video) == ("some/run", 10, None)
    assert (options.device, options.checkpoint, options.json) == ("auto", "newest", False)
    assert parse_arguments(["--evaluate", "", "--json"]).evaluate == ""
    options = parse_arguments(
        ["--evaluate", "x", "--episodes", "3", "--video", "y.mp4", "--device", "cuda:1", "--json", "--checkpoint", "7"]
    )
    assert (
        options.checkpoint == "7" and parse_arguments(["--evaluate", "", "--checkpoint", "best"]).checkpoint == "best"
    )
    assert (options.episodes, options.video, options.device, options.json) == (3, "y.mp4", "cuda:1", True)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dmc-walker-walk"],
        ["--config", "x", "--seed", "1"],
        ["--config", "x", "--resume", "y"],
        ["--config", "x", "--evaluate", "y"],
        ["--resume", "x", "--evaluate", "y"],
        ["--resume"],
        ["--config", "x", "--folder", ""],
        ["--resume", "x", "--folder", "y"],
        ["--evaluate", "x", "--folder", "y"],
        ["--list", "--folder", "y"],
        ["--list", "x", "operation.seed=1"],
        ["--list", "", "operation.seed=1"],
        ["--evaluate", "", "operation.seed=1"],
        ["--evaluate", "x", "operation.seed=1"],
        ["--evaluate", "x", "--episodes", "0"],
        ["--evaluate", "x", "--episodes", "-1"],
        ["--evaluate", "x", "--episodes", "many"],
        *(["--evaluate", "x", "--checkpoint", name] for name in ("0", "oldest", "", "²")),
        *(["--evaluate", "x", "--device", name] for name in ("tpu", "", "cuda:-1", "meta", "a\nb")),
    ],
)
def test_invalid_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(arguments)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and line.endswith("; --help tells more")


@pytest.mark.parametrize("option", [["--video", "x.mp4"], ["--json"], ["--episodes", "3"], ["--checkpoint", "3"]])
@pytest.mark.parametrize("what", ["--config", "--resume"])
def test_evaluation_options_are_refused_without_evaluate(what, option, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse_arguments([what, "latest", *option])
    assert exit_.value.code == 2 and "go with --evaluate" in capsys.readouterr().err


def test_commands_equal_their_flags():
    def flags(*words):
        return parse_arguments(words)

    folder = ["--folder", "runs/a=b", "--env", "X-v0"]
    options = parse_training(["k=1", *folder, "quick-v3", "size1m", "k=2"])
    assert options == flags("k=1", "--config", "quick-v3", "size1m", *folder, "k=2")
    assert parse_training(["--resume", "latest", "k=1"]) == flags("--resume", "latest", "k=1")
    assert parse_evaluation(["x", "--episodes", "3", "--json"]) == flags("--evaluate", "x", "--episodes", "3", "--json")
    assert parse_listing([]) == flags("--list") and parse_listing(["x"]) == flags("--list", "x")
    assert vars(parse_playing(["x"])) == vars(flags("--evaluate", "x", "--episodes", "1", "--video", "play.mp4")) | {
        "shows": True
    }


@pytest.mark.parametrize("words", [[], ["k=1"], ["quick-v3", "--resume", "x"], ["--resume", "x", "--folder", "y"]])
def test_training_needs_a_configuration_or_a_run(words, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_training(words)
    assert caught.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1


def test_every_command_can_be_called_and_is_listed(capsys):
    for command in COMMANDS.values():
        assert callable(getattr(importlib.import_module(command.module), command.function))
    with pytest.raises(SystemExit):
        commands.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"  {name} " in text and command.help in text for name, command in COMMANDS.items())


def test_runs_are_searched_in_the_working_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert commands.main(["list"]) == commands.main(["--list"]) == 0
    assert capsys.readouterr().out == 2 * f"there is no run in {tmp_path}/runs\n"


def test_film_is_opened_if_there_is_a_display(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    execute.show_film("play.mp4")
    assert capsys.readouterr().out == "there is no display here; the film is in play.mp4\n" and not opened
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.chdir(tmp_path)
    execute.show_film("play.mp4")
    assert opened == [f"file://{tmp_path}/play.mp4"]


def test_unknown_command_is_an_error(capsys):
    with pytest.raises(SystemExit):
        commands.main(["verfy", "latest"])
    assert capsys.readouterr().err == "error: no command verfy; did you mean verify?; --help tells more\n"


def test_help_does_not_import_torch():
    """main.py does not import it either, since each environment worker imports main.py."""
    code = "import sys, main; from dreamer.tools import commands\ntry: commands.main(['--help'])\n"
    code += "except SystemExit: sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=CONFIGS.parent, check=True, stdout=subprocess.DEVNULL)
