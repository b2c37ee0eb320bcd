"""experiments/count_functions.py."""

from dreamer.training.metrics import ExponentialAverage
from experiments import count_functions


def test_each_function_of_this_package_counts_once():
    average = ExponentialAverage(span=3)

    def call():
        for number in sorted([3, 1]):
            average.add(number)
        assert average.value is not None

    names = [(file, name.rpartition(".")[2]) for file, name in count_functions.functions_called_by(call)]
    assert names == [("training/metrics.py", "add"), ("training/metrics.py", "value")]
    assert count_functions.functions_called_by(lambda: None) == []


def test_functions_of_an_update_are_listed(capsys):
    """Those of the world model's loss as well as those of the behavior's, and nothing that samples the batch."""
    assert count_functions.main(["quick-v3-cartpole", "environment.frame_skip=1", "--list"]) == 0
    summary, *functions = capsys.readouterr().out.splitlines()
    files = {line.split()[0] for line in functions}
    assert summary.split() == f"quick-v3-cartpole {len(functions)} functions in {len(files)} files".split()
    names = [line.split()[1].rpartition(".")[2] for line in functions]
    assert names[0] == "update" and {"observe", "imagine_step", "lambda_return"} <= set(names)
    assert "sample" not in {name for file, name in map(str.split, functions) if file.startswith("replay/")}


def test_unknown_configuration_is_a_one_line_error(capsys):
    assert count_functions.main(["nope"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no configuration")
