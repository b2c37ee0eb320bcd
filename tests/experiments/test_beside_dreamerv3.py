"""experiments/beside_dreamerv3.py and dreamerv3_jax.py. Neither JAX nor the authors' package is needed."""

import subprocess
import sys
from contextlib import ExitStack

import pytest

from dreamer.config.load import load_config
from experiments import beside_dreamerv3
from experiments.beside_dreamerv3 import CASES, Player, row, spread
from experiments.dreamerv3_jax import their_settings


def settings_of_case(name, *overrides):
    case = CASES[name]
    return their_settings(load_config(case.configs.split(), [*case.overrides.split(), *overrides]))


def test_size1m_has_the_sizes_of_theirs():
    """The numbers stand for size1m in the authors' configuration."""
    settings = settings_of_case("size1m-state")
    rssm, encoder, policy = settings["dyn"]["rssm"], settings["enc"]["simple"], settings["policy"]
    assert (rssm["deter"], rssm["hidden"], rssm["stoch"], rssm["classes"]) == (512, 64, 32, 4)
    assert (rssm["blocks"], rssm["imglayers"], rssm["obslayers"], rssm["free_nats"]) == (8, 2, 1, 1.0)
    assert (encoder["depth"], encoder["kernel"], encoder["layers"], encoder["units"]) == (4, 5, 3, 64)
    assert (policy["layers"], policy["units"], policy["minstd"], policy["maxstd"]) == (3, 64, 0.1, 1.0)
    assert [settings[head]["layers"] for head in ("rewhead", "conhead", "value")] == [1, 1, 3]
    assert (settings["batch_size"], settings["batch_length"]) == (16, 64)
    assert (settings["imag_length"], settings["imag_last"]) == (15, 0)
    assert settings["horizon"] == pytest.approx(333)
    assert settings["loss_scales"] == dict(rec=1, rew=1, con=1, dyn=1, rep=0.1, policy=1, value=1, repval=0.3)


def test_what_differs_in_the_small_configurations():
    changed = settings_of_case(
        "quick-v3", *(f"parameters.dreamer.{key}" for key in ("imagine_last=4", "reward.bins=31"))
    )
    assert changed["imag_last"] == 4 and (changed["rewhead"]["bins"], changed["value"]["bins"]) == (31, 255)
    settings = settings_of_case("quick-v3-cartpole-swingup")
    assert (settings["batch_size"], settings["imag_length"], settings["imag_last"]) == (8, 12, 0)


@pytest.mark.parametrize(
    "override", ["rssm.transition_model.hidden_size=32", "encoder={architecture: strided, depth: 8}"]
)
def test_networks_that_theirs_cannot_have(override):
    with pytest.raises(ValueError, match=override.partition("=")[0].partition(".")[0]):
        settings_of_case("quick-v3", f"parameters.dreamer.{override}")


def test_the_other_half_needs_neither_torch_nor_our_package():
    check = "import sys; import experiments.beside_dreamerv3; sys.exit(bool({'torch', 'dreamer'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], cwd=beside_dreamerv3.ROOT).returncode == 0


def test_a_row_compares_turn_by_turn():
    times = {"ours": [0.2, 0.4, 0.6], "ours, compiled": [0.1, 0.1, 0.1], "theirs": [0.2, 0.2, 0.2]}
    name, ours, compiled, theirs, ratio, compiled_ratio, parameters = row("size1m", 1234567, times)
    assert ours == "400 (300 – 500) ms" and theirs == "200 (200 – 200) ms"
    assert ratio == "2 (1.5 – 2.5)" and compiled_ratio == "0.5 (0.5 – 0.5)"
    assert parameters == "1,234,567"


def test_actions_have_no_compiled_form():
    assert row("act", 1, {"ours": [0.01], "theirs": [0.02]}) == ["act", "10 ms", "", "20 ms", "0.5", "", "1"]
    assert spread([]) == ""


def test_a_process_that_fails_says_why(tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'no module named jax' >&2\n")
    program.chmod(0o755)
    with ExitStack() as stack, pytest.raises(ChildProcessError, match="theirs: no module named jax"):
        Player(stack, str(program), "theirs", {})


@pytest.mark.parametrize("words", [["--only", "size2m"], ["--only", "size1m-state"]])
def test_what_cannot_be_compared(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        beside_dreamerv3.main(words)
    assert "error: --" in capsys.readouterr().err
