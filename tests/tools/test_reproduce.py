import json

import pytest

from dreamer.config.load import load_config
from dreamer.tools import reproduce, sweep
from dreamer.tools.reproduce import UNFINISHED, main
from dreamer.training.run_folder import CONFIGURATION

HEAD = "method,task,observations,action_repeat,env_steps,mean,std,seeds\n"
CONFIG = "quick-cartpole-swingup"
PUBLISHED = "dreamer-v1,cartpole_swingup,state,{repeat},{steps},{mean},{std},3\n"


@pytest.fixture
def fake_sweep(tmp_path, monkeypatch):
    """Return a function that replaces the sweep by one whose runs have these returns by env steps."""
    monkeypatch.chdir(tmp_path)
    repeat = load_config(CONFIG).environment.frame_skip
    lines = [
        PUBLISHED.format(repeat=repeat, steps=steps, mean=mean, std=20) for steps, mean in [(500, 50), (2000, 200)]
    ]
    (tmp_path / "reference.csv").write_text(HEAD + "".join(lines))

    def install(*curves, status=0):
        def do(runs, options):
            for seed, (run, curve) in enumerate(zip(runs, curves, strict=True)):
                run.folder.mkdir(parents=True, exist_ok=True)
                (run.folder / CONFIGURATION).write_text(f"base: {CONFIG}\noperation: {{seed: {seed}}}\n")
                reports = [
                    {"iteration": number, "env_steps": steps, "eval/return_ema20": value}
                    for number, (steps, value) in enumerate(curve.items())
                ]
                (run.folder / "metrics.jsonl").write_text("".join(json.dumps(report) + "\n" for report in reports))
            return status

        monkeypatch.setattr(sweep, "sweep", do)
        monkeypatch.setattr(reproduce, "plan_lines", lambda options, runs: [f"{runs} runs"])
        return [CONFIG, "--reference", "reference.csv", "--seeds", str(len(curves)), "--json"]

    return install


@pytest.mark.parametrize(
    "ends, verdict, status",
    [([150, 175, 190], "within", 0), ([100, 120, 150], "below", 1), ([230, 250, 270], "above", 0), ([179], "below", 1)],
)
def test_verdict_compares_at_equal_env_steps(ends, verdict, status, fake_sweep, capsys):
    """The runs have returns at 1,000 and 3,000 env steps; the published 200 ± 20 is at 2,000, between these."""
    words = fake_sweep(*({0: 0.0, 1000: 0.0, 3000: 2.0 * end} for end in ends))
    assert main(words) == status
    found = json.loads(capsys.readouterr().out)
    assert (found["env_steps"], found["returns"], found["verdict"]) == (2000, ends, verdict)
    assert (found["published_mean"], found["published_std"], found["published_seeds"]) == (200, 20, 3)


def test_runs_shorter_than_the_published_curve_get_no_verdict(fake_sweep, capsys):
    assert main(fake_sweep({0: 0.0, 3000: 200.0}, {0: 0.0, 400: 10.0})) == UNFINISHED
    assert "no verdict: not every run has reached 500 env steps" in capsys.readouterr().err
    assert main(fake_sweep({0: 0.0, 3000: 200.0}, {0: 0.0, 900: 60.0}, status=1)) == 1, "a run has failed"


def test_other_settings_are_refused_unless_the_method_is_named(fake_sweep, capsys, tmp_path):
    words = fake_sweep({0: 0.0, 3000: 400.0})
    line = PUBLISHED.format(repeat=9, steps=2000, mean=200, std=20)
    (tmp_path / "reference.csv").write_text(HEAD + line)
    assert main(words) == 2
    assert "was published for state, action repeat 9; --method dreamer-v1 compares it" in capsys.readouterr().err
    assert main([*words, "--method", "dreamer-v1"]) == 0
    capsys.readouterr()
    assert main([*words, "version=2"]) == 2
    assert (
        "has no points of dreamer-v2 on cartpole_swingup; of cartpole_swingup it has: dreamer-v1"
        in capsys.readouterr().err
    )


def test_plan_trains_nothing_and_finds_the_included_reference(fake_sweep, capsys, tmp_path):
    fake_sweep()
    assert main(["dmc-walker-walk", "--plan"]) == 0
    assert capsys.readouterr().err == "5 runs\n" and not (tmp_path / "runs").exists()


def test_plan_measures_an_update(monkeypatch):
    monkeypatch.setattr(reproduce, "SECONDS", 0.3)
    monkeypatch.setattr("dreamer.tools.check.prediction.SECONDS", 0.1)
    options = reproduce.parse_arguments([CONFIG, "parameters.dreamer.batch_size=2", "--seeds", "3"])
    one, every = reproduce.plan_lines(options, 3)
    assert one.startswith("a run ") and "ms an update" in one and "MB on disk" in one
    assert every.startswith("3 runs ") and "one after the other" in every
