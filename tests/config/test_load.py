import re
from pathlib import Path

import pytest
import yaml

from dreamer.config.load import (
    CONFIGS,
    MAY_CHANGE,
    dump_config,
    load_config,
    load_run_config,
)
from dreamer.config.schema import MEMORY, RANGES, REAL, check
from dreamer.config.yaml_files import flatten, unflatten
from dreamer.errors import ConfigError
from dreamer.training.saved_configuration import SavedConfiguration

NAMES = sorted(path.stem for path in CONFIGS.glob("*.yml"))
RUN = "dmc-quadruped-run"

SELF_CONTAINED = """\
algorithm: dreamer-v1
operation: {log_dir: "cheetah-run-alone", save: False, device: cpu, seed: 7, video_interval: 10}
environment:
  {benchmark: "dmc", domain_name: "cheetah", task_name: "run", seed: 11, visualize_reward: False, from_pixels: True,
  height: 64, width: 64, frame_skip: 4, pixel_norm: True, camera_id: 0}
parameters:
  dreamer: {
    train_iterations: 200, collect_interval: 100, num_interaction_episodes: 1, seed_episodes: 5, num_evaluate: 3,
    evaluate_interval: 20, batch_size: 50, batch_length: 50, horizon_length: 15, kl_divergence_scale: 1, free_nats: 3,
    discount: 0.99, lambda_: 0.95, use_continue_flag: False, continue_scale: 10, exploration_noise: 0.3,
    model_learning_rate: 6e-4, actor_learning_rate: 8e-5, critic_learning_rate: 8e-5, adam_epsilon: 1e-7,
    clip_grad: 100, grad_norm_type: 2, deterministic_size: 200, stochastic_size: 30, embedded_state_size: 1024,
    buffer: {capacity: 1e5},
    encoder: {depth: 32, kernel_size: 4, stride: 2, hidden_size: 300, num_layers: 3, activation: ELU},
    decoder: {depth: 32, kernel_size: 5, stride: 2, hidden_size: 300, num_layers: 3, activation: ELU},
    rssm: {
      recurrent_model: {hidden_size: 201, activation: ELU},
      transition_model: {hidden_size: 202, num_layers: 2, activation: ELU, min_std: 0.1},
      representation_model: {hidden_size: 203, num_layers: 2, activation: ELU, min_std: 0.1}},
    reward: {hidden_size: 400, num_layers: 2, activation: ELU},
    continue_: {hidden_size: 400, num_layers: 3, activation: ELU},
    agent: {
      actor: {hidden_size: 400, num_layers: 3, activation: ELU, min_std: 1e-4, init_std: 5, mean_scale: 5},
      critic: {hidden_size: 400, num_layers: 2, activation: ELU}}}
"""


def flat_values(tree, prefix=""):
    """Return {dotted key: value} of a nested mapping."""
    flat = {}
    for name, value in tree.items():
        flat |= flat_values(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


DEFAULTS = flat_values(load_config("dreamer"))


def complaint(name, *overrides, load=load_config):
    """Return the one-line message with which `load_config` refuses."""
    with pytest.raises(ConfigError) as caught:
        load(name, overrides)
    message = str(caught.value)
    assert message and "\n" not in message
    assert "pydantic" not in message and "nput should" not in message
    return message


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file into a temporary folder and returns its path."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def set_in_file(write, key, value):
    """Write a file that sets a dotted key. Return its path."""
    *sections, name = key.split(".")
    above = "".join(f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections))
    return write("mine.yml", f"{above}{'  ' * len(sections)}{name}: {value}\n")


def full_key(name):
    """Return the first key that ends with `name`."""
    return next(key for key in DEFAULTS if f".{key}".endswith(f".{name}"))


# The files of configs/


def test_every_key_has_a_default():
    assert len(DEFAULTS) == len(flat_values(yaml.safe_load((CONFIGS / "dreamer.yml").read_text()))) > 70
    null = [key.split(".", 1)[1] for key, value in DEFAULTS.items() if value is None]
    assert null == ["initialize_from", "success_key", "seed", "dreamer.max_env_steps", "dreamer.train_ratio"] + [
        "dreamer.dataset",
        "dreamer.imagine_last",
        "dreamer.kl_dynamics_scale",
        "dreamer.kl_representation_scale",
        "plan2explore.explore_env_steps",
    ]
    assert not [key for key, value in DEFAULTS.items() if isinstance(value, str) and re.search(r"[#\s]", value)]


def test_every_line_of_dreamer_yml_has_a_simple_form():
    lines = [line for line in (CONFIGS / "dreamer.yml").read_text().splitlines() if re.match(r" *\w+:", line)]
    assert len(lines) > len(DEFAULTS)
    assert all(re.match(r" *\w+:( [^#\s]+)?( +# \S.*)?$", line) for line in lines)


NULL = [key for key, value in DEFAULTS.items() if value is None]


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_loads(name):
    by_name, by_file, by_path = (
        flat_values(load_config(each)) for each in (name, f"{name}.yml", CONFIGS / f"{name}.yml")
    )
    assert by_name == by_file == by_path
    types, defaults = ({key: type(value) for key, value in each.items()} for each in (by_name, DEFAULTS))
    assert types | dict.fromkeys(NULL, type(None)) == defaults
    assert by_name["operation.log_dir"] == ("dreamer" if name.startswith("size") else name)


def test_tasks_of_a_family_are_configurations():
    by_name, by_file, by_path = (flat_values(load_config(each)) for each in (RUN, f"{RUN}.yml", CONFIGS / f"{RUN}.yml"))
    assert by_name == by_file == by_path
    own = {"domain_name": "quadruped", "task_name": "run", "camera_id": 2}
    assert by_name == DEFAULTS | {f"environment.{key}": own[key] for key in own} | {"operation.log_dir": RUN}
    exploring = flat_values(load_config(f"p2e-{RUN}"))
    assert exploring == by_name | {"algorithm": "plan2explore", "operation.log_dir": f"p2e-{RUN}"}


@pytest.mark.parametrize(
    "wrong, near", [("dmc-quadruped-rum", RUN), ("atari-pogn", "atari-pong"), (f"p2e-{RUN}s", f"p2e-{RUN}")]
)
def test_unknown_task_error_names_similar_tasks(wrong, near):
    assert near in complaint(wrong)


def test_tasks_key_is_refused_in_users_files(write):
    assert "unknown key tasks" in complaint(write("mine.yml", "base: dreamer.yml\ntasks: any\n"))


def test_configuration_supports_attributes_and_keywords():
    config = load_config("dreamer")
    assert config.parameters.dreamer.agent.actor.num_layers == 4
    critic = {
        "distribution": "normal",
        "bins": 255,
        "outscale": 1,
        "hidden_size": 400,
        "num_layers": 3,
        "activation": "ELU",
    }
    assert {**config.parameters.dreamer.agent.critic} == critic
    config.parameters.dreamer.batch_size = 1
    assert flat_values(load_config("dreamer")) == DEFAULTS


# Files


def test_bases_stack(write):
    write("low.yml", "base: dreamer.yml\noperation: {seed: 1, log_dir: low}\nenvironment: {frame_skip: 3}\n")
    write("middle.yml", "base: low.yml\noperation: {seed: 2}\n")
    config = load_config(write("high.yml", "base: middle.yml\nparameters:\n  dreamer: {batch_size: 4}\n"))
    assert (config.operation.seed, config.operation.log_dir, config.environment.frame_skip) == (2, "low", 3)
    assert (config.parameters.dreamer.batch_size, config.parameters.dreamer.batch_length) == (4, 50)


def test_base_may_be_the_name_of_a_configuration(write):
    assert load_config(write("mine.yml", "base: dmc-quadruped-run\n")).environment.camera_id == 2
    assert "dmc-walker-walk" in complaint(write("mine.yml", "base: dmc-walker-wlak.yml\n"))


def test_several_bases_are_merged_in_order(write):
    config = load_config(write("mine.yml", "base: [dreamer-v3, size1m.yml]\n"))
    assert flat_values(config) == flat_values(load_config(["dreamer-v3", "size1m"], ["operation.log_dir=dreamer-v3"]))


@pytest.mark.parametrize("base", ["one.yml", "two.yml", "../sub/one.yml"])
def test_circular_bases_are_refused(write, base):
    write("sub/two.yml", "base: one.yml\n")
    path = write("sub/one.yml", f"base: {base}\n")
    assert complaint(path).startswith(f"{path}: its base ")


def test_empty_section_keeps_the_defaults(write):
    text = "operation:\nparameters:\n  dreamer:\n  plan2explore: {}\nenvironment:\n  seed:\n"
    assert flat_values(load_config(write("mine.yml", text))) == DEFAULTS
    path = write("mine.yml", "parameter:\n")
    assert complaint(path).startswith(f"{path}: unknown key parameter;")
    path = write("mine.yml", "environment:\n  height:\n")
    assert complaint(path) == f"{path}: environment.height: expected a whole number from 1 to 1024, not None"


@pytest.mark.parametrize(
    "content", ["a: [1\n", "a:\n\tb: 1\n", "a: b: c", "- seed\n", "seed", "", "\0", b"\xff\xfe\x00seed"]
)
def test_files_that_are_no_yaml_mapping_are_refused(write, content):
    path = write("mine.yml", content)
    assert complaint(path).startswith(f"{path}: ")


REPEATED = "".join(f"a{i}: &a{i} {{b: *a{i - 1}, c: *a{i - 1}}}\n" for i in range(1, 40))
MERGED = "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))
ENDLESS = {
    "a0: &a0 {x: 1}\n" + REPEATED: "more than 10000 values (line 11)",
    "a0: &a0 {x: 1}\n" + MERGED: "more than 10000 values (line 11)",
    "operation: &a {seed: *a}": "more than 10000 values (line 1)",
    "a: [" + 10_000 * "1," + "]": "more than 10000 values (line 1)",
    "a: " + 5000 * "[": "it is nested too deeply",
    1_000_001 * " ": "it is longer than 1000000 bytes",
}


@pytest.mark.parametrize("content", ENDLESS, ids=ENDLESS.values())
def test_endless_files_are_refused(write, content):
    path = write("mine.yml", content)
    assert complaint(path) == f"{path}: not readable as YAML: {ENDLESS[content]}"


def test_unreadable_file_is_an_error(write, monkeypatch):
    path, read = write("mine.yml", "operation: {seed: 1}\n"), Path.read_text

    def refuse(self, *arguments, **keywords):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert complaint(path).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["dmc-walker-wlak", "dmc-walker-walk.yaml", "some/where/dmc_walker_walk.yml"])
def test_unknown_file_error_names_similar_files(name):
    message = complaint(name)
    assert name in message and "dmc-walker-walk" in message


def test_duplicate_keys_are_refused(write):
    path = write("mine.yml", "operation:\n  seed: 1\n  log_dir: a\n  seed: 2\n")
    assert re.fullmatch(rf"{re.escape(str(path))}: .*\bseed is there twice.*\b4\b.*", complaint(path))
    path = write("mine.yml", "environment: {height: 64}\noperation: {seed: 1}\nenvironment: {width: 64}\n")
    assert "environment is there twice" in complaint(path)
    override = "parameters.dreamer.encoder={depth: 4, depth: 5}"
    message = complaint("dreamer", override)
    assert override in message and "depth is there twice" in message


def test_mapping_may_override_merged_keys(write):
    text = "parameters: {dreamer: {encoder: &one {depth: 8, stride: 3}, decoder: {<<: *one, depth: 16}}}\n"
    settings = load_config(write("mine.yml", text)).parameters.dreamer
    assert (settings.encoder.depth, settings.decoder.depth, settings.decoder.stride) == (8, 16, 3)


def test_file_without_a_base_uses_defaults(write, capsys):
    config = load_config(write("alone.yml", SELF_CONTAINED))
    expected = flat_values(yaml.safe_load(SELF_CONTAINED))
    assert expected.pop("operation.save") is False and expected.pop("parameters.dreamer.embedded_state_size") == 1024
    assert expected.pop("algorithm") == "dreamer-v1", "the old name of dreamer, version 1"
    exponents = {key: float(value) for key, value in expected.items() if re.fullmatch(r"\de-?\d", str(value))}
    assert flat_values(config) == DEFAULTS | expected | exponents, "the keys that it lacks keep their defaults"
    assert len(exponents) == 6
    output = capsys.readouterr()
    assert output.out == ""
    words = r"warning: .*alone\.yml: operation\.save .*\nwarning: .*alone\.yml: .*embedded_state_size .*\n"
    assert re.fullmatch(words, output.err)
    load_config("dmc-walker-walk", ["operation.seed=1"])
    assert capsys.readouterr().err == ""


def test_atari_file_without_a_base_ignores_control_suite_keys(write, capsys):
    """Keys of the Control Suite are ignored."""
    text = SELF_CONTAINED.replace('"dmc"', "atari").replace('"run"', "pong").replace("domain_name: ", "domain_name: x")
    environment = load_config(write("alone.yml", text)).environment
    assert (environment.benchmark, environment.task_name, environment.sticky_actions) == ("atari", "pong", 0.25)
    assert "environment.domain_name is ignored: environment.benchmark is atari" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names, lost",
    [("dmc-walker-walk size1m dreamer-v3", "size1m"), ("dmc-walker-walk dmc-cheetah-run", "dmc-walker-walk")],
)
def test_configuration_without_effect_is_refused(names, lost):
    assert complaint(names.split()).startswith(f"configuration {lost} has no effect: later ones")


@pytest.mark.parametrize("name", ["dmc-quadruped-walk", "quick-cartpole-balance"])
def test_dumped_configuration_can_be_loaded(write, name):
    overrides = ["parameters.dreamer.grad_norm_type=.inf", "environment.seed=5", "operation.log_dir=010"]
    config = load_config(name, overrides)
    text = dump_config(config)
    assert flat_values(load_config(write("config.yml", text))) == flat_values(config)
    assert yaml.safe_load(text).keys() == {
        "algorithm",
        "version",
        "operation",
        "environment",
        "evaluation",
        "parameters",
    }


# Values


NUMBERS = """actor_learning_rate=8e-5 actor_learning_rate=1 capacity=1e6 capacity=2000.0 grad_norm_type=.inf discount=0
    free_nats=2 operation.seed=4294967294 environment.seed=3 camera_id=-1 camera_id=1000
    batch_length=2 explore_env_steps=1e5 num_ensemble=2 batch_size=010 video_interval=0 kl_divergence_scale=1e9"""
WORDS = """activation=Tanh task_name=my_module:MyEnv-v0 task_name=1:30 log_dir=010 log_dir=12 log_dir=a=b device=cuda:1
    explorer=random disagreement=std initialize_from=runs/12 precision=bfloat16 render_quality=fast threads=2"""
OTHERS = {"use_continue_flag=true": True, "from_pixels=False": False, "environment.seed=null": None}


@pytest.mark.parametrize(
    "setting, value",
    [(setting, float(setting.split("=")[1].lstrip("."))) for setting in NUMBERS.split()]
    + [(setting, setting.partition("=")[2]) for setting in WORDS.split()]
    + [*OTHERS.items(), ("explore_env_steps=null", None)],
)
def test_valid_values_are_accepted_with_the_default_types(write, setting, value):
    """Command line and files give the same value, of the default's type; other keys do not change."""
    name, _, text = setting.partition("=")
    key = full_key(name)
    kind = type(DEFAULTS[key] or 0) if isinstance(value, float) else type(value)
    for config in (load_config("dreamer", [f"{key}={text}"]), load_config(set_in_file(write, key, text))):
        config = flat_values(config)
        assert config[key] == value and type(config[key]) is kind
        assert config == DEFAULTS | {key: value}


def test_yaml_sexagesimals_are_refused():
    assert complaint("dreamer", "parameters.dreamer.batch_size=1:30").endswith(" from 1 to 10000, not '1:30'")
    assert complaint("dreamer", "parameters.dreamer.discount=0:0.5").endswith(" from 0 to 1, not '0:0.5'")


def test_last_override_wins():
    config = load_config("quick-cartpole-balance", ["operation.seed=1", "operation.seed=2", "environment.frame_skip=1"])
    assert (config.operation.seed, config.environment.frame_skip) == (2, 1)


CANNOT_BE = {  # the complaint: what gets it
    "one of dreamer, plan2explore": "algorithm=dreamer-v9|1|null",
    "one of 1, 2, 3": "version=0|4|two|null",
    "one of float32, bfloat16": "precision=float16",
    "one of dmc, gym, gymnasium, atari, crafter, memory-maze, metaworld, minatar, minigrid, python": "benchmark=mario",
    "one of full, fast": "render_quality=slow",
    "one of disagreement, random": "explorer=uniform",
    "one of variance, std, population_std": "plan2explore.disagreement=entropy",
    "one of ELU, ReLU, LeakyReLU, GELU, SiLU, Tanh, Softplus, Mish": "activation=relu|Linear critic.activation=elu",
    "auto, cpu, cuda or cuda:<number>": "device=gpu|cpus|my_cpu|autocuda|'cuda:'|'cuda:256'|'cuda:08'|[cpu]",
    "auto or a number from 1 to 999": "threads=0|-1|1.5|all|1000|True",
    "text of letters, digits and any of _ . + = -": "log_dir=a/b||2024-12-01",
    "the folder of a run, or null": "initialize_from=latest|[1]",
    "the folder of a dataset, as dreamer data import writes it, or null": "dataset=[1]",
    "a line of text": "task_name=[walk]|True|null",
    "True or False": "from_pixels=1|'True'|null reward_gradient_to_model=1 grayscale=1 full_action_set=all "
    "terminal_on_life_loss=3",
    "a whole number from 0 to 4294967294": "operation.seed=True|2.5|one|null|[1]|.inf|1e400|-1|4294967295|4294967296",
    "a whole number from 0 to 4294967294, or null": "environment.seed=x|True|-1",
    "a whole number from -1 to 1000": "camera_id=-2|1001",
    "a whole number from 2 to 1000": "num_ensemble=1|1001|null",
    "a whole number from 0 to 1000": "noops=-1|1001|many|null",
    "a whole number from 0 to 1000000000000": "video_interval=-1|.5 pretrain=1000000000001 seed_episodes=-1",
    "a whole number from 1 to 100000000": "capacity=0|10000000000|1000000000000",
    "a whole number from 2 to 10000": "batch_length=1 horizon_length=1000000000",
    "a whole number from 1 to 10000": "batch_size=0|1000000000",
    "a whole number from 1 to 1024": "height=-64|1.5|True|1000000000 environment.width=1025 num_envs=0|100000",
    "a whole number from 1 to 512": "encoder.depth=1000000000 decoder.depth=0 transition_model.num_layers=1.5",
    "a whole number from 1 to 64": "encoder.kernel_size=1000000000 decoder.stride=65",
    "a whole number from 1 to 32768": "encoder.hidden_size=1000000000 deterministic_size=0 stochastic_size=32769",
    "a whole number from 1 to 1000000000000": "frame_skip=0|1.5|True|10000000000000 time_limit=0|null",
    "a whole number from 1 to 1000000000000, or null": "explore_env_steps=0|-1|1.5|never max_env_steps=0",
    "a number from 0 to 1": "discount=1.01|nan|.nan|high|null|[0.9]|True lambda_=-0.1 sticky_actions=1.1",
    "a number from 0 to 1000000000": "kl_divergence_scale=-1|.inf|2000000000 free_nats=-1 continue_scale=-1 "
    "exploration_noise=-1 actor.min_std=-1",
    "a number of 1 or more": "grad_norm_type=0|.nan",
    "a finite number above 0": "clip_grad=.inf|0|True|.nan model_learning_rate=0 intrinsic_reward_scale=0",
}
REFUSED = [
    (full_key(name), value, words)
    for words, settings in CANNOT_BE.items()
    for name, _, values in (setting.partition("=") for setting in settings.split(" "))
    for value in values.split("|")
] + [("operation.log_dir", "'a b'", "text of letters, digits and any of _ . + = -")]


@pytest.mark.parametrize("key, value, words", REFUSED)
def test_invalid_values_are_refused(write, key, value, words):
    path, given = set_in_file(write, key, value), yaml.safe_load(value)
    given = float(given) if given in ("1e400", "nan") else given
    warning = complaint("dreamer", f"{key}={value}").partition("; ")  # what it would take, if it is a number too high
    assert warning[0] == f"override: {key}: expected {words}, not {given!r}"
    assert complaint(path) == "".join(warning).replace("override", str(path), 1)


def refusal_message(key, value):
    """Return the message that refuses a value, checked without a whole configuration."""
    with pytest.raises(ConfigError) as caught:
        check({key: value}, "x")
    return str(caught.value)


@pytest.mark.parametrize("name, bound", [(name, high) for name, (_, high) in RANGES.items() if name in MEMORY])
def test_memory_limits_name_the_size(name, bound):
    key = full_key(name)
    assert check({key: bound}, "x") == {key: bound}
    for value in (bound + 1, 10**12 + 1, 10**400):
        line = refusal_message(key, value)
        assert line.endswith(f"; {MEMORY[name]}") and re.search(r"\d [MGT]B", line)


def test_whole_numbers_have_an_upper_limit():
    whole = {key for key, value in DEFAULTS.items() if type(value) is int or value is None} - {"version"}
    for key in whole - {full_key(name) for name in ("initialize_from", "success_key", "dataset", *REAL)}:
        assert f" {key}: expected a whole number from " in refusal_message(key, 10**13)


def test_messages_about_huge_numbers_are_short():
    for key in (key for key, value in DEFAULTS.items() if type(value) in (int, float)):
        for value in (10**400, -(10**400)):
            assert len(refusal_message(key, value)) < 500


LONG = "x" * 5000


@pytest.mark.parametrize(
    "override",
    [f"operation.seed={LONG}", f"operation.seed=[{LONG}", f"{LONG}=1", LONG, f"operation.seed={{{LONG}: 1}}"]
    + [f"operation.seed={{{LONG}: 1, {LONG}: 2}}", f"operation.device={LONG}", f"operation.seed=[{LONG}]"],
)
def test_messages_quote_only_the_beginning_of_long_values(override, write):
    for line in (complaint("dreamer", override), complaint(override)):
        assert LONG[:150] in line and LONG[:250] not in line


def test_too_large_batches_are_refused():
    settings = [f"parameters.dreamer.{name}=1001" for name in ("batch_size", "batch_length")]
    assert "is 1,002,001 steps; expected at most 1,000,000" in complaint("dreamer", *settings)


def test_min_std_of_actions_must_be_below_max_std(capsys):
    """DreamerV3 has both bounds."""
    bounds = ["parameters.dreamer.agent.actor.min_std=2.0"]
    line = complaint("dreamer-v3", *bounds)
    assert line == "parameters.dreamer.agent.actor.min_std: 2.0 is above agent.actor.max_std, 1.0; lower it"
    load_config("dreamer", bounds)


NEAREST = {
    "parameters.dreamer.batch_size": "batch_size parameters.batch_size parameters.dreamer.batchsize",
    "learning_rate": "parameters.dreamer.learning_rate",
    "num_layers": "parameters.dreamer.agent.actor.layers parameters.dreamer.agent.critic.num_layer",
    "operation.seed": "operation.seeds operation.seed.x",
    "environment.domain_name": "environment.domain",
    "seed": "seed",
}


@pytest.mark.parametrize("key, nearest", [(key, nearest) for nearest, keys in NEAREST.items() for key in keys.split()])
def test_unknown_key_error_names_similar_keys(key, nearest):
    message = complaint("dreamer", f"{key}=1")
    assert message.startswith(f"override: unknown key {key}; the nearest is ") and message.endswith(nearest)


@pytest.mark.parametrize("text, wrong", [("{sed: 1}", "unknown key operation.sed"), ("{seed: -1}", "operation.seed: ")])
def test_message_names_the_file(write, text, wrong):
    low = write("low.yml", f"operation: {text}\n")
    assert complaint(write("high.yml", "base: low.yml\noperation: {seed: 1}\n")).startswith(f"{low}: {wrong}")


@pytest.mark.parametrize("key, value", [("environment", "gym"), ("parameters.dreamer", "3"), ("operation", "null")])
def test_setting_a_section_is_refused(write, key, value):
    expected = f"{key}: it is a section: set one of its keys, such as {key}."
    assert complaint("dreamer", f"{key}={value}").startswith(f"override: {expected}")
    path = set_in_file(write, key, value)
    assert complaint(path).startswith(f"{path}: {expected}")
    assert complaint("dreamer", f"{key}=").startswith(f"override: {expected}")
    assert complaint("dreamer", f"{key}={{depth: 4}}").startswith(f"override: {expected}")


@pytest.mark.parametrize(
    "override",
    ["operation.seed", "=3", "operation.seed=[1", "operation.log_dir='a", "--seed 3", "operation.log_dir=2024-02-30"]
    + ["operation.seed=0b_", "environment.from_pixels=!!bool maybe", "operation.seed=!!timestamp x"],
)
def test_malformed_overrides_are_refused(override):
    message = complaint("dreamer", override)
    assert override in message and ("=" in override or "written key=value" in message)


def test_replay_shorter_than_a_window_is_refused():
    message = complaint("dreamer", "parameters.dreamer.buffer.capacity=49")
    assert "buffer.capacity" in message and "batch_length" in message and "49" in message and "50" in message
    load_config("dreamer", ["parameters.dreamer.buffer.capacity=50"])


@pytest.mark.parametrize(
    "setting, reason",
    [
        ("operation.save=False", "nothing reads it"),
        ("parameters.dreamer.embedded_state_size=512", "it follows from the encoder"),
        ("parameters.dreamer.embedded_state_size=null", None),
        ("parameters.dreamer.proportional_updates=True", "an iteration makes collect_interval updates; train_ratio "),
        ("parameters.dreamer.proportional_updates=False", None),
    ],
)
def test_removed_keys_give_a_warning_if_they_had_an_effect(setting, reason, write, capsys):
    """They are accepted on the command line and in the file of an older run."""
    key, _, value = setting.partition("=")
    warning = f"{key} is ignored: {reason}" if reason else ""
    assert flat_values(load_config("dreamer", [setting])) == DEFAULTS
    assert warning in capsys.readouterr().err
    path = write("config.yml", dump_config(unflatten(DEFAULTS | {key: yaml.safe_load(value)})))
    assert flat_values(load_run_config(path, [])) == DEFAULTS
    (line,) = capsys.readouterr().err.splitlines() or [""]
    assert warning in line and bool(warning) == bool(line)


@pytest.mark.parametrize("override", ["num_ensemble=5", "explorer=random", "one_step_model.num_layers=2"])
def test_plan2explore_keys_give_a_warning_with_dreamer(override, capsys):
    override = f"parameters.plan2explore.{override}"
    expected = f"warning: {override.partition('=')[0]} is ignored: dreamer does not read it\n"
    load_config("dreamer", [override])
    assert capsys.readouterr().err == expected
    load_config("plan2explore", ["algorithm=dreamer", override])
    assert capsys.readouterr().err == expected
    load_config("plan2explore", [override])
    assert capsys.readouterr().err == ""


def test_defaults_and_saved_configurations_give_no_warning(write, capsys):
    """Files of configs/ and the whole configuration saved in a run are not the user's own settings."""
    load_config("plan2explore", ["algorithm=dreamer"])
    for names in ("dreamer", ["dmc-walker-walk", "dreamer-v3"]):
        path = write("config.yml", dump_config(load_config(names)))
        load_run_config(path, [])
    assert capsys.readouterr().err == ""
    load_config(write("mine.yml", "parameters: {plan2explore: {num_ensemble: 5}}\n"))
    assert "num_ensemble is ignored" in capsys.readouterr().err


# Versions


@pytest.mark.parametrize("version", [1, 2, 3])
def test_old_algorithm_names_are_accepted(version, write):
    """They may occur in a run's configuration and in its checkpoints."""
    expected = flat_values(load_config("dreamer", [f"version={version}"]))
    assert flat_values(load_config(write("config.yml", f"algorithm: dreamer-v{version}\n"))) == expected
    past = SavedConfiguration(load_config("dreamer", [f"version={version}"]), "config.yml")
    past.load_state_dict(past.state_dict() | {"algorithm": f"dreamer-v{version}"})
    with pytest.raises(ConfigError, match="algorithm|version"):
        past.load_state_dict(past.state_dict() | {"algorithm": f"dreamer-v{version % 3 + 1}"})


def test_old_algorithm_name_alone_is_refused_for_versions_2_and_3(write):
    """With the name alone, the other keys would be those of version 1."""
    assert load_config("dreamer", ["algorithm=dreamer-v1"]) == load_config("dreamer")
    words = "expected one of dreamer, plan2explore, not 'dreamer-v3'; there is a configuration of that name: --config …"
    assert complaint("dreamer", "algorithm=dreamer-v3") == f"override: algorithm: {words} dreamer-v3"
    assert words in complaint(write("mine.yml", "algorithm: dreamer-v3\n"))


def test_several_configurations_are_merged_and_name_the_run():
    """Each is merged over the previous one; a file's base does not override configurations named before it."""
    config = load_config(["dmc-quadruped-run", "dreamer-v3", "size1m"], ["operation.seed=4"])
    assert config.operation.log_dir == "dmc-quadruped-run-dreamer-v3-size1m" and config.operation.seed == 4
    assert (config.version, config.environment.domain_name, config.environment.camera_id) == (3, "quadruped", 2)
    settings = config.parameters.dreamer
    assert (settings.deterministic_size, settings.classes, settings.agent.critic.hidden_size) == (512, 4, 64)
    assert (settings.optimizer, settings.batch_length, settings.reward.distribution) == ("laprop", 64, "two_hot")
    assert load_config(["dmc-walker-walk", "dreamer-v2"], ["operation.log_dir=x"]).operation.log_dir == "x"
    assert "dreamer-v3" in complaint(["dmc-walker-walk", "dreamer-v4"])


@pytest.mark.parametrize(
    "names, override, words",
    [
        ("dreamer", "kl_dynamics_scale=0.8", "give both or neither"),
        ("dreamer-v2", "kl_representation_scale=null", "give both or neither"),
        ("dreamer-v2", "replay_critic_scale=0.3", "only in version 3"),
    ],
)
def test_incompatible_settings_are_refused(names, override, words):
    assert words in complaint(names, f"parameters.dreamer.{override}")


# A run that goes on

MAY = """device=cpu loggers=[jsonl] video_interval=3 checkpoint_interval=5 keep_every=9 background_evaluation=True
    success_key=won fast_paths=False precision=bfloat16 train_iterations=2000 collect_interval=50 num_evaluate=7
    evaluate_interval=9 explore_env_steps=500000 evaluation_device=cpu max_env_steps=400000 threads=2 compile=True"""
CHANGES = {full_key(name): value for name, value in (setting.split("=") for setting in MAY.split())}


@pytest.fixture
def run_config(write):
    """Return the config.yml of a run."""
    overrides = ["operation.seed=3", "parameters.dreamer.batch_size=16"]
    return write("config.yml", dump_config(load_config("plan2explore", overrides)))


@pytest.mark.parametrize("key, value", CHANGES.items())
def test_settings_that_may_change_in_a_resumed_run(key, value, run_config):
    assert CHANGES.keys() == MAY_CHANGE
    override = f"{key}={value}"
    after = load_run_config(run_config, [override])
    assert after == load_config(run_config, [override]) != load_config(run_config)


def test_resumed_run_uses_its_saved_configuration(run_config):
    same = ["operation.seed=3", "parameters.dreamer.batch_size=16"]
    assert load_run_config(run_config, []) == load_run_config(run_config, same) == load_config(run_config)


MAY_NOT = """algorithm=dreamer version=2 operation.seed=4 operation.log_dir=other operation.initialize_from=runs/other
    environment.task_name=run environment.frame_skip=4 environment.num_envs=2 environment.render_quality=fast
    environment.seed=1 batch_size=50 buffer.capacity=1000 num_interaction_episodes=2 dreamer.model_learning_rate=0.001
    actor.num_layers=2 num_ensemble=5"""


@pytest.mark.parametrize("setting", MAY_NOT.split())
def test_settings_that_may_not_change_in_a_resumed_run(setting, run_config):
    name, _, value = setting.partition("=")
    key = full_key(name)
    before = flat_values(yaml.safe_load(run_config.read_text()))[key]
    message = complaint(run_config, "operation.device=cpu", f"{key}={value}", load=load_run_config)
    assert message.startswith(f"{key}: {before} cannot become {value} in a resumed run")


def test_invalid_settings_are_refused_when_resuming(run_config):
    message = complaint(run_config, "operation.video_interval=-1", load=load_run_config)
    assert "operation.video_interval: expected a whole number from 0 to 1000000000000" in message
    assert "unknown key operation.sed" in complaint(run_config, "operation.sed=3", load=load_run_config)


def test_kwargs_mappings_are_merged(tmp_path):
    """The names in environment.kwargs are the environment's own."""
    base, above = tmp_path / "base.yml", tmp_path / "above.yml"
    base.write_text("environment: {benchmark: gym, kwargs: {size: 5, config: {lanes: [1, {wide: True}]}}}")
    above.write_text("base: base.yml\nenvironment: {kwargs: {size: 6}}")
    config = load_config(above, ["environment.kwargs.map_name=8x8", "environment.kwargs={goal: null}"])
    kwargs = {"size": 6, "config": {"lanes": [1, {"wide": True}]}, "map_name": "8x8", "goal": None}
    assert config.environment["kwargs"] == flatten(config)["environment.kwargs"] == kwargs
    (tmp_path / "again.yml").write_text(dump_config(config))
    again = load_config(tmp_path / "again.yml")
    assert again == config and type(again.environment["kwargs"]["config"]) is dict  # as an environment gets it
    assert load_config("dreamer").environment["kwargs"] == {}


@pytest.mark.parametrize("value", ["3", "{1: 2}", "{day: 2020-01-01}", "{all: {1: 2}}", "[size]"])
def test_kwargs_that_are_no_mapping_of_names_are_refused(value):
    with pytest.raises(ConfigError, match="environment.kwargs: expected a mapping of names to values, not "):
        load_config("quick-v3-cartpole", [f"environment.kwargs={value}"])
