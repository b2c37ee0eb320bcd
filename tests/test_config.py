import re
from pathlib import Path

import pytest
import yaml

from dreamer.config import (
    CONFIGS,
    MAY_CHANGE,
    ConfigError,
    check_embedding_size,
    dump_config,
    load_config,
    load_run_config,
)

NAMES = sorted(path.stem for path in CONFIGS.glob("*.yml"))
TASKS = [name for name in NAMES if name.startswith("dmc-")]

SELF_CONTAINED = """\
algorithm: dreamer-v1
operation:
  log_dir: "cheetah-run-alone"
  save: False
  device: cpu
  seed: 7
  video_interval: 10
environment:
  benchmark: "dmc"
  domain_name: "cheetah"
  task_name: "run"
  seed: 11
  visualize_reward: False
  from_pixels: True
  height: 64
  width: 64
  frame_skip: 4
  pixel_norm: True
  camera_id: 0
parameters:
  dreamer:
    train_iterations: 200
    collect_interval: 100
    num_interaction_episodes: 1
    seed_episodes: 5
    num_evaluate: 3
    evaluate_interval: 20
    batch_size: 50
    batch_length: 50
    horizon_length: 15
    kl_divergence_scale: 1
    free_nats: 3
    discount: 0.99
    lambda_: 0.95
    use_continue_flag: False
    continue_scale: 10
    exploration_noise: 0.3
    model_learning_rate: 6e-4
    actor_learning_rate: 8e-5
    critic_learning_rate: 8e-5
    adam_epsilon: 1e-7
    clip_grad: 100
    grad_norm_type: 2
    deterministic_size: 200
    stochastic_size: 30
    embedded_state_size: 1024
    buffer:
      capacity: 1e5
    encoder:
      {depth: 32, kernel_size: 4, stride: 2, hidden_size: 300, num_layers: 3, activation: ELU}
    decoder:
      {depth: 32, kernel_size: 5, stride: 2, hidden_size: 300, num_layers: 3, activation: ELU}
    rssm:
      recurrent_model: {hidden_size: 201, activation: ELU}
      transition_model: {hidden_size: 202, num_layers: 2, activation: ELU, min_std: 0.1}
      representation_model: {hidden_size: 203, num_layers: 2, activation: ELU, min_std: 0.1}
    reward: {hidden_size: 400, num_layers: 2, activation: ELU}
    continue_: {hidden_size: 400, num_layers: 3, activation: ELU}
    agent:
      actor: {hidden_size: 400, num_layers: 3, activation: ELU, min_std: 1e-4, init_std: 5, mean_scale: 5}
      critic: {hidden_size: 400, num_layers: 2, activation: ELU}
"""


def leaves(tree, prefix=""):
    """{dotted key: value} of a nested mapping."""
    flat = {}
    for name, value in tree.items():
        flat |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


DEFAULTS = leaves(load_config("dreamer"))


def complaint(name, *overrides):
    """The one line that load_config refuses with."""
    with pytest.raises(ConfigError) as caught:
        load_config(name, overrides)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


@pytest.fixture
def write(tmp_path):
    """Writes a file into a temporary folder and returns its path."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_every_key_has_a_default():
    assert len(DEFAULTS) == len(leaves(yaml.safe_load((CONFIGS / "dreamer.yml").read_text()))) > 70
    assert {key for key, value in DEFAULTS.items() if value is None} == {
        "operation.initialize_from",
        "environment.seed",
        "parameters.dreamer.embedded_state_size",
        "parameters.plan2explore.explore_env_steps",
    }
    assert not [key for key, value in DEFAULTS.items() if isinstance(value, str) and re.search(r"[#\s]", value)]


def test_every_key_is_explained_or_says_it_itself():
    lines = [line for line in (CONFIGS / "dreamer.yml").read_text().splitlines() if re.match(r" *\w+:", line)]
    assert len(lines) > len(DEFAULTS)
    assert all(re.match(r" *\w+:( [^#\s]+)?( +# \S.*)?$", line) for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_loads(name):
    by_name, by_file, by_path = (leaves(load_config(each)) for each in (name, f"{name}.yml", CONFIGS / f"{name}.yml"))
    assert by_name == by_file == by_path
    assert by_name.keys() == DEFAULTS.keys()
    assert {key: type(value) for key, value in by_name.items()} == {key: type(value) for key, value in DEFAULTS.items()}
    assert by_name["operation.log_dir"] == name


@pytest.mark.parametrize("name", TASKS)
def test_a_tasks_name_is_what_it_holds(name):
    environment = load_config(name).environment
    assert f"dmc-{environment.domain_name}-{environment.task_name}".replace("_", "-") == name
    assert (environment.benchmark, environment.from_pixels, environment.frame_skip) == ("dmc", True, 2)
    changed = {key for key, value in leaves(load_config(name)).items() if value != DEFAULTS[key]}
    assert changed <= {f"environment.{key}" for key in ("domain_name", "task_name", "camera_id")} | {
        "operation.log_dir"
    }


def test_attributes_and_keywords():
    config = load_config("dreamer")
    assert config.parameters.dreamer.agent.actor.num_layers == 4
    assert {**config.parameters.dreamer.agent.critic} == {"hidden_size": 400, "num_layers": 3, "activation": "ELU"}


def test_bases_stack(write):
    write("low.yml", "base: dreamer.yml\noperation: {seed: 1, log_dir: low}\nenvironment: {frame_skip: 3}\n")
    write("middle.yml", "base: low.yml\noperation: {seed: 2}\n")
    config = load_config(write("high.yml", "base: middle.yml\nparameters:\n  dreamer: {batch_size: 4}\n"))
    assert (config.operation.seed, config.operation.log_dir, config.environment.frame_skip) == (2, "low", 3)
    assert (config.parameters.dreamer.batch_size, config.parameters.dreamer.batch_length) == (4, 50)


def test_a_base_may_be_a_name_of_configs(write):
    assert load_config(write("mine.yml", "base: dmc-quadruped-run\n")).environment.camera_id == 2


@pytest.mark.parametrize("base", ["one.yml", "two.yml"])
def test_a_base_that_leads_back(write, base):
    write("two.yml", "base: one.yml\n")
    path = write("one.yml", f"base: {base}\n")
    assert complaint(path).startswith(f"{path}: its base ")


def test_a_base_that_leads_back_by_another_spelling(write):
    assert "base" in complaint(write("sub/one.yml", "base: ../sub/one.yml\n"))


def test_an_unknown_base_is_named(write):
    assert "dmc-walker-walk" in complaint(write("mine.yml", "base: dmc-walker-wlak.yml\n"))


@pytest.mark.parametrize(
    "override, value",
    [
        ("parameters.dreamer.actor_learning_rate=8e-5", 8e-5),  # text in YAML 1.1
        ("parameters.dreamer.actor_learning_rate=1", 1.0),
        ("parameters.dreamer.buffer.capacity=1e6", 1000000),
        ("parameters.dreamer.buffer.capacity=2000.0", 2000),
        ("parameters.dreamer.grad_norm_type=.inf", float("inf")),
        ("parameters.dreamer.discount=0", 0.0),
        ("parameters.dreamer.use_continue_flag=true", True),
        ("parameters.dreamer.encoder.activation=Tanh", "Tanh"),
        ("parameters.dreamer.embedded_state_size=512", 512),
        ("environment.seed=3", 3),
        ("environment.seed=null", None),
        ("environment.camera_id=-1", -1),
        ("environment.task_name=my_module:MyEnv-v0", "my_module:MyEnv-v0"),
        ("operation.log_dir=12", "12"),
        ("operation.log_dir=a=b", "a=b"),
        ("operation.device=cuda:1", "cuda:1"),
    ],
)
def test_overrides(override, value):
    key = override.partition("=")[0]
    config = leaves(load_config("dmc-walker-walk", [override]))
    assert config[key] == value and type(config[key]) is type(value)
    unchanged = leaves(load_config("dmc-walker-walk"))
    assert {other for other in config if config[other] != unchanged[other]} <= {key}


def test_the_last_override_wins():
    config = load_config("quick-cartpole-balance", ["operation.seed=1", "operation.seed=2", "environment.frame_skip=1"])
    assert (config.operation.seed, config.environment.frame_skip) == (2, 1)


def test_numbers_without_a_point_in_files(write):
    text = "parameters:\n  dreamer: {actor_learning_rate: 8e-5, buffer: {capacity: 1e5}, free_nats: 2}\n"
    settings = load_config(write("mine.yml", text)).parameters.dreamer
    assert (settings.actor_learning_rate, settings.free_nats) == (8e-5, 2.0)
    assert settings.buffer.capacity == 100000 and isinstance(settings.buffer.capacity, int)


@pytest.mark.parametrize(
    "override, words",
    [
        ("operation.seed=True", "whole number"),
        ("operation.seed=2.5", "whole number"),
        ("operation.seed=-1", "-1"),
        ("operation.seed=4294967296", "4294967296"),
        ("operation.seed=one", "whole number"),
        ("operation.seed=null", "whole number"),
        ("operation.seed=[1]", "whole number"),
        ("operation.seed=.inf", "whole number"),
        ("operation.seed=1e400", "whole number"),
        ("operation.video_interval=-1", "0 or more"),
        ("operation.device=gpu", "auto, cpu, cuda"),
        ("operation.device='cuda:'", "auto, cpu, cuda"),
        ("operation.device='cuda:256'", "auto, cpu, cuda"),
        ("operation.device='cuda:08'", "auto, cpu, cuda"),
        ("operation.log_dir=a/b", "letters"),
        ("operation.log_dir='a b'", "letters"),
        ("operation.log_dir=", "text"),
        ("operation.log_dir=2024-12-01", "text"),
        ("environment.seed=x", "whole number"),
        ("environment.seed=True", "whole number"),
        ("environment.from_pixels=1", "True or False"),
        ("environment.from_pixels='True'", "True or False"),
        ("environment.from_pixels=null", "True or False"),
        ("environment.task_name=[walk]", "text"),
        ("environment.task_name=True", "text"),
        ("environment.benchmark=atari", "dmc, gym"),
        ("environment.frame_skip=0", "above 0"),
        ("environment.height=-64", "above 0"),
        ("environment.camera_id=-2", "-1"),
        ("algorithm=dreamer-v9", "dreamer-v1"),
        ("parameters.dreamer.batch_length=1", "2 or more"),
        ("parameters.dreamer.horizon_length=1", "2 or more"),
        ("parameters.dreamer.discount=1.01", "0 to 1"),
        ("parameters.dreamer.lambda_=-0.1", "0 to 1"),
        ("parameters.dreamer.discount=nan", ""),
        ("parameters.dreamer.discount=.nan", ""),
        ("parameters.dreamer.discount=high", "number"),
        ("parameters.dreamer.discount=null", "number"),
        ("parameters.dreamer.discount=[0.9]", "number"),
        ("parameters.dreamer.free_nats=-1", "0"),
        ("parameters.dreamer.grad_norm_type=0", "1 or more"),
        ("parameters.dreamer.clip_grad=.inf", ""),
        ("parameters.dreamer.clip_grad=0", "above 0"),
        ("parameters.dreamer.clip_grad=True", ""),
        ("parameters.dreamer.model_learning_rate=0", "above 0"),
        ("parameters.dreamer.embedded_state_size=0", "above 0"),
        ("parameters.dreamer.agent.actor.activation=relu", "ReLU"),
        ("parameters.dreamer.agent.actor.min_std=-1", "0"),
        ("parameters.dreamer.rssm.transition_model.num_layers=1.5", "whole number"),
        ("parameters.plan2explore.num_ensemble=1", "2 to 1000"),
        ("parameters.plan2explore.num_ensemble=null", "whole number"),
        ("parameters.plan2explore.explorer=uniform", "disagreement, random"),
        ("parameters.plan2explore.disagreement=entropy", "variance, std"),
        ("parameters.plan2explore.explore_env_steps=0", "above 0"),
        ("parameters.plan2explore.explore_env_steps=-1", "above 0"),
        ("parameters.plan2explore.explore_env_steps=1.5", "whole number"),
        ("parameters.plan2explore.explore_env_steps=never", "whole number"),
        ("parameters.plan2explore.intrinsic_reward_scale=0", "above 0"),
        ("parameters.plan2explore.reward_gradient_to_model=1", "True or False"),
        ("parameters.plan2explore.one_step_model.activation=elu", "ELU"),
    ],
)
def test_values_that_cannot_be(write, override, words):
    key, _, value = override.partition("=")
    *sections, name = key.split(".")
    text = "".join(f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections))
    path = write("mine.yml", f"{text}{'  ' * len(sections)}{name}: {value}\n")
    for message in (complaint("dreamer", override), complaint(path)):
        assert key in message and words in message


@pytest.mark.parametrize("key", ["discount", "clip_grad"])
def test_a_truth_value_for_a_number_is_named(key):
    assert re.search(
        r"expected a (finite )?number .*, not True$", complaint("dreamer", f"parameters.dreamer.{key}=True")
    )


@pytest.mark.parametrize(
    "override, nearest",
    [
        ("batch_size=16", "parameters.dreamer.batch_size"),
        ("parameters.batch_size=16", "parameters.dreamer.batch_size"),
        ("parameters.dreamer.batchsize=16", "parameters.dreamer.batch_size"),
        ("parameters.dreamer.learning_rate=1", "learning_rate"),
        ("parameters.dreamer.agent.actor.layers=1", "num_layers"),
        ("parameters.dreamer.agent.critic.num_layer=1", "num_layers"),
        ("operation.seeds=1", "operation.seed"),
        ("environment.domain=walker", "environment.domain_name"),
        ("operation.seed.x=1", "operation.seed"),
        ("seed=1", "seed"),
    ],
)
def test_unknown_keys_name_the_nearest(override, nearest):
    message = complaint("dreamer", override)
    assert f"unknown key {override.partition('=')[0]};" in message
    assert message.endswith(nearest)


def test_an_unknown_key_names_its_file(write):
    path = write("mine.yml", "operation: {sed: 1}\n")
    assert complaint(path).startswith(f"{path}: unknown key operation.sed; the nearest is operation.seed")
    assert complaint("dreamer", "operation.sed=1").startswith("command line")


@pytest.mark.parametrize(
    "override", ["environment=gym", "parameters.dreamer=3", "parameters.dreamer.encoder={depth: 4}"]
)
def test_a_section_is_not_a_key(override):
    key = override.partition("=")[0]
    message = complaint("dreamer", override)
    assert key in message and "section" in message and f"{key}." in message


def test_an_empty_section_keeps_the_defaults(write):
    assert leaves(load_config(write("mine.yml", "operation:\nparameters:\n  dreamer:\n"))) == DEFAULTS


@pytest.mark.parametrize("override", ["operation.seed", "operation.seed=[1", "operation.log_dir='a", "--seed 3"])
def test_overrides_that_are_not_key_and_value(override):
    assert override in complaint("dreamer", override)


@pytest.mark.parametrize("override", ["operation.log_dir=2024-02-30", "operation.seed=0b_"])
def test_overrides_that_yaml_cannot_construct(override):
    with pytest.raises(ConfigError):
        load_config("dreamer", [override])


@pytest.mark.parametrize(
    "content", ["operation: [1\n", "operation:\n\tseed: 1\n", "a: b: c", "- seed\n", "seed", "", b"\xff\xfe\x00seed"]
)
def test_files_that_are_not_a_mapping_in_yaml(write, content):
    path = write("mine.yml", content)
    assert complaint(path).startswith(f"{path}: ")


def test_a_file_that_may_not_be_read(write, monkeypatch):
    path, read = write("mine.yml", "operation: {seed: 1}\n"), Path.read_text

    def refuse(self, *arguments, **keywords):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert complaint(path).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["dmc-walker-wlak", "dmc-walker-walk.yaml", "some/where/dmc_walker_walk.yml"])
def test_an_unknown_file_names_the_nearest(name):
    message = complaint(name)
    assert name in message and "dmc-walker-walk" in message


def test_a_self_contained_file(write, capsys):
    config = load_config(write("alone.yml", SELF_CONTAINED))
    expected = leaves(yaml.safe_load(SELF_CONTAINED))
    assert expected.pop("operation.save") is False
    exponents = {key: float(value) for key, value in expected.items() if re.fullmatch(r"\de-?\d", str(value))}
    assert leaves(config) == DEFAULTS | expected | exponents, "the keys that it lacks keep their defaults"
    assert len(exponents) == 6
    output = capsys.readouterr()
    assert output.out == ""
    assert re.fullmatch(r"warning: .*alone\.yml: operation\.save .*\n", output.err)


def test_only_an_ignored_key_warns(capsys):
    load_config("dmc-walker-walk", ["operation.seed=1"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["dmc-quadruped-walk", "quick-cartpole-balance"])
def test_a_dumped_configuration_loads_again(write, name):
    overrides = ["parameters.dreamer.grad_norm_type=.inf", "environment.seed=5", "operation.log_dir=12"]
    config = load_config(name, overrides)
    text = dump_config(config)
    assert leaves(load_config(write("config.yml", text))) == leaves(config)
    assert yaml.safe_load(text).keys() == {"algorithm", "operation", "environment", "parameters"}


def test_the_replay_must_hold_a_window():
    message = complaint("dreamer", "parameters.dreamer.buffer.capacity=49")
    assert "buffer.capacity" in message and "batch_length" in message and "49" in message and "50" in message
    load_config("dreamer", ["parameters.dreamer.buffer.capacity=50"])


@pytest.mark.parametrize("given", [None, 1024])
def test_embedding_size_that_fits(given):
    check_embedding_size(given, 1024)


def test_embedding_size_that_does_not_fit():
    with pytest.raises(ConfigError, match="embedded_state_size: 512.*1024"):
        check_embedding_size(512, 1024)


@pytest.mark.parametrize(
    "override, value",
    [
        ("explore_env_steps=1e5", 100000),
        ("explore_env_steps=null", None),
        ("num_ensemble=2", 2),
        ("explorer=random", "random"),
        ("disagreement=std", "std"),
        ("reward_gradient_to_model=True", True),
    ],
)
def test_overrides_of_plan2explore(override, value):
    key = override.partition("=")[0]
    exploration = load_config("plan2explore", [f"parameters.plan2explore.{override}"]).parameters.plan2explore
    assert exploration[key] == value and type(exploration[key]) is type(value)


@pytest.mark.parametrize("override", ["num_ensemble=5", "explorer=random", "one_step_model.num_layers=2"])
def test_what_only_plan2explore_reads_draws_a_warning_with_dreamer(override, capsys):
    key = f"parameters.plan2explore.{override.partition('=')[0]}"
    warning = f"warning: {key} is ignored: dreamer-v1 does not read it\n"
    load_config("dreamer", [f"parameters.plan2explore.{override}"])
    assert capsys.readouterr().err == warning
    load_config("plan2explore", ["algorithm=dreamer-v1", f"parameters.plan2explore.{override}"])
    assert capsys.readouterr().err == warning
    load_config("plan2explore", [f"parameters.plan2explore.{override}"])
    assert capsys.readouterr().err == ""


# A run that goes on

CHANGES = {
    "operation.device": "cpu",
    "operation.video_interval": 3,
    "operation.checkpoint_interval": 5,
    "operation.background_evaluation": True,
    "operation.fast_paths": False,
    "operation.precision": "bfloat16",
    "parameters.dreamer.train_iterations": 2000,
    "parameters.dreamer.collect_interval": 50,
    "parameters.dreamer.num_evaluate": 7,
    "parameters.dreamer.evaluate_interval": 9,
    "parameters.plan2explore.explore_env_steps": 500000,
}


@pytest.fixture
def run_config(tmp_path):
    """The config.yml of a run."""
    overrides = ["operation.seed=3", "parameters.dreamer.batch_size=16"]
    path = tmp_path / "config.yml"
    path.write_text(dump_config(load_config("plan2explore", overrides)))
    return path


def test_everything_that_may_change_is_tried():
    assert set(CHANGES) == MAY_CHANGE


@pytest.mark.parametrize("key, value", CHANGES.items())
def test_what_may_change_in_a_run_that_goes_on(key, value, run_config):
    override = f"{key}={value}"
    after = load_run_config(run_config, [override])
    assert after == load_config(run_config, [override]) != load_config(run_config)


def test_a_run_goes_on_with_its_own_configuration(run_config):
    same = ["operation.seed=3", "parameters.dreamer.batch_size=16"]
    assert load_run_config(run_config, []) == load_run_config(run_config, same) == load_config(run_config)


@pytest.mark.parametrize(
    "override, before",
    [
        ("algorithm=dreamer-v1", "plan2explore"),
        ("operation.seed=4", "3"),
        ("operation.log_dir=other", "plan2explore"),
        ("operation.initialize_from=runs/other", "None"),
        ("environment.task_name=run", "walk"),
        ("environment.frame_skip=4", "2"),
        ("environment.num_envs=2", "1"),
        ("environment.render_quality=fast", "full"),
        ("environment.seed=1", "None"),
        ("parameters.dreamer.batch_size=50", "16"),
        ("parameters.dreamer.buffer.capacity=1000", "1000000"),
        ("parameters.dreamer.num_interaction_episodes=2", "1"),
        ("parameters.dreamer.model_learning_rate=1e-3", "0.0006"),
        ("parameters.dreamer.agent.actor.num_layers=2", "4"),
        ("parameters.plan2explore.num_ensemble=5", "10"),
    ],
)
def test_what_may_not_change_in_a_run_that_goes_on(override, before, run_config):
    key, _, value = override.partition("=")
    with pytest.raises(ConfigError) as caught:
        load_run_config(run_config, ["operation.device=cpu", override])
    value = "0.001" if value == "1e-3" else value
    assert str(caught.value).startswith(f"{key}: {before} cannot become {value} in a run that goes on")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_is_refused_in_a_run_that_goes_on_too(run_config):
    with pytest.raises(ConfigError, match="operation.video_interval: expected a whole number of 0 or more"):
        load_run_config(run_config, ["operation.video_interval=-1"])
    with pytest.raises(ConfigError, match="unknown key operation.sed"):
        load_run_config(run_config, ["operation.sed=3"])
