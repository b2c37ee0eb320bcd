import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dreamer.algorithms.dreamer import Dreamer
from dreamer.algorithms.losses import Imagination
from dreamer.algorithms.policy import Policy
from dreamer.config.load import load_config
from dreamer.envs.actions import ActionParts
from dreamer.modules.ensemble import disagreement
from dreamer.modules.layers import EnsembleLinear
from dreamer.replay.step import Batch
from dreamer.training.collect import run_episode
from tests.toys import (
    SMALL,
    CoinEnv,
    ToyEnv,
    changed,
    fill,
    learn_model,
    make_agent,
    make_dreamer,
    make_plan2explore,
    parameters,
    spy,
    train,
)

F, A, E, K = 20, 1, 32, 5  # the sizes of `make_plan2explore`
NOISE_FLOOR = 0.5 * E * math.log(2 * math.pi)  # lowest negative log-likelihood of E unit Normals
PARTS = "one_step_model", "exploration_actor", "exploration_critic"
NEW_TAGS = {"exploration/intrinsic_reward", "exploration/disagreement_replay"}
NEW_TAGS |= {f"{kind}/{part}" for kind in ("loss", "grad_norm") for part in PARTS}
NEW_TAGS |= {f"behavior/exploration_{name}" for name in ("entropy", "imagined_return", "value")}


@pytest.fixture
def agent():
    """Return an agent with a continue model and five terminal episodes in its replay."""
    return fill(make_plan2explore(CoinEnv(terminates=True), "dreamer.use_continue_flag=True"), episodes=5)


def collect_actions(monkeypatch, agent, episodes):
    """Collect with the policy of the current phase and return its actions."""
    trainer = agent.trainer
    added = spy(monkeypatch, trainer.replay, "add")
    trainer.collect(agent.active(trainer.env_steps).collection_policy(trainer.env), episodes)
    return np.stack([step.action for (step,), _ in added if not step.is_first])


def transitions(is_first, batch_size=8, batch_length=10, generator=None):
    """Return a batch with random actions and the given `is_first`, random features and random embeddings."""
    shape = batch_size, batch_length
    generator = generator or torch.Generator().manual_seed(0)
    random = [torch.randn(*shape, size, generator=generator) for size in (A, F, E)]
    is_first = torch.as_tensor(is_first, dtype=torch.float32).expand(shape).clone()
    empty = torch.zeros(shape)
    return Batch(empty, random[0], empty, is_first, empty, torch.zeros(batch_size, 0)), *random[1:]


def learn_one_step(agent, batch, feature, embedding):
    """Make one gradient step of the ensemble from states with this feature. Return the metrics."""
    return agent.novelty.learn(batch, SimpleNamespace(feature=feature), embedding)


# Alignment: which action, which state and which target belong together


def shifted(part, steps):
    """Move the entry at t + steps to t."""
    return part.roll(-steps, 1)


@pytest.mark.parametrize("shift", [None, *itertools.product(("action", "feature", "target"), (-1, 1))], ids=str)
def test_only_the_right_time_index_predicts_the_next_embedding(shift):
    """The target is a coin in s_t times the sign of a_{t+1}, so a prediction needs both at the right index."""
    agent = make_plan2explore(ToyEnv(), "plan2explore.one_step_model_learning_rate=2e-3")
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(80):
        batch, noise, _ = transitions(0, 64, 6, generator)
        coin, sign = noise[..., :1].sign(), batch.action.sign()
        parts = {"action": sign, "feature": torch.cat([coin, torch.zeros(64, 6, F - 1)], -1)}
        parts["target"] = (sign * shifted(coin, -1)).expand(-1, -1, E)
        if shift:
            parts[shift[0]] = shifted(parts[shift[0]], shift[1])
        metrics = learn_one_step(agent, batch._replace(action=parts["action"]), parts["feature"], parts["target"])
        losses.append(metrics["loss/one_step_model"].item())
    final_loss, constant = np.mean(losses[-10:]), NOISE_FLOOR + E / 2
    if shift:
        assert final_loss > constant - 2
    else:
        assert final_loss < NOISE_FLOOR + 0.5


class EchoEnv(ToyEnv):
    """The observation is the action that led to it; the first one is random."""

    def reset(self, *, seed=None, options=None):
        self.last = self.action_space.sample()
        return super().reset()

    def step(self, action):
        self.last = action
        return super().step(action)

    def observe(self):
        return self.last


@pytest.mark.parametrize("action_shift", [0, -1, 1])
def test_what_an_action_leads_to_is_predicted_from_replayed_steps(action_shift, monkeypatch):
    """The world model is fixed and o_{t+1} equals a_{t+1}, so only the right action predicts it."""
    settings = "plan2explore.one_step_model_learning_rate=4e-3", "dreamer.batch_size=32"
    agent = fill(make_plan2explore(EchoEnv(), *settings), episodes=20)
    monkeypatch.setattr(agent.dreamer.model_optimizer, "step", lambda loss: torch.zeros(()))
    with torch.no_grad():
        for parameter in agent.model.encoder.parameters():
            parameter *= 4
        constant = NOISE_FLOOR + agent.model.encoder(torch.linspace(-1, 1, 99)[:, None]).var(0).sum().item() / 2
    assert constant > NOISE_FLOOR + 5
    losses = []
    for _ in range(80):
        batch = agent.trainer.learner.sample()
        posterior, embedding, _ = learn_model(agent.dreamer, batch)
        shifted_batch = batch._replace(action=shifted(batch.action, action_shift))
        losses.append(agent.novelty.learn(shifted_batch, posterior, embedding)["loss/one_step_model"].item())
    final_loss = np.mean(losses[-20:])
    if action_shift:
        assert final_loss > constant - 1.5
    else:
        assert final_loss < NOISE_FLOOR + 1


# Where an episode ends


def learn_without_moving(agent, batch, feature, embedding):
    """Return metrics and gradients of `learn_one_step` without changing parameters."""
    agent.novelty.optimizer.adam.step = lambda: None
    metrics = learn_one_step(agent, batch, feature, embedding)
    return {name: value.item() for name, value in metrics.items()}, [
        part.grad.clone() for part in agent.novelty.optimizer.parameters
    ]


IS_FIRST = [1, 0, 0, 1, 0, 1, 1, 0, 0, 1]


def test_nothing_is_learned_across_an_episodes_boundary(agent):
    """The feature before a boundary, and the action and the embedding at it, do not change loss or gradients."""
    batch, feature, embedding = transitions(IS_FIRST)
    metrics, gradients = learn_without_moving(agent, batch, feature, embedding)
    first = batch.is_first.bool()
    before = shifted(first, 1)
    before[:, -1] = True
    other = learn_without_moving(
        agent,
        batch._replace(action=batch.action.masked_fill(first[..., None], 9.0)),
        feature.masked_fill(before[..., None], 9.0),
        embedding.masked_fill(first[..., None], 99.0),
    )
    assert other[0] == metrics
    assert all(torch.equal(one, same) for one, same in zip(gradients, other[1], strict=True))


@pytest.mark.parametrize("measure", ["variance", "std"])
def test_ensemble_loss_is_the_mean_over_transitions_within_episodes(agent, measure):
    """Metrics and gradients are means over the transitions that cross no episode boundary."""
    agent.novelty.config.disagreement = measure
    batch, feature, embedding = transitions(IS_FIRST)
    metrics, gradients = learn_without_moving(agent, batch, feature, embedding)
    counted = [t for t in range(1, 10) if not IS_FIRST[t]]
    prediction = agent.novelty.one_step_model(feature[:, [t - 1 for t in counted]], batch.action[:, counted])
    error = (prediction.mean - embedding[:, counted]).square().sum(-1) / 2 + NOISE_FLOOR
    assert metrics["loss/one_step_model"] == pytest.approx(error.mean().item(), rel=1e-5)
    mean_disagreement = disagreement(prediction.mean, measure).mean().item()
    assert metrics["exploration/disagreement_replay"] == pytest.approx(mean_disagreement, rel=1e-5)
    expected = torch.autograd.grad(error.mean((1, 2)).sum(), agent.novelty.optimizer.parameters)
    for one, same in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, same)


def test_batch_without_transitions_changes_nothing(agent):
    before = parameters(agent)
    assert learn_one_step(agent, *transitions(1)) == {
        "loss/one_step_model": 0,
        "grad_norm/one_step_model": 0,
        "exploration/disagreement_replay": 0,
    }
    assert not changed(before, parameters(agent))


# What reaches the world model


WHILE_EXPLORING, AFTER_EXPLORING = {"reward_model", "actor", "critic"}, {"reward_model", "actor", "critic", "model"}
ALL_PARTS = AFTER_EXPLORING | {"one_step_model", "exploration_actor", "exploration_critic"}


@pytest.mark.parametrize(
    "settings, changed_parts",
    [
        ([], WHILE_EXPLORING),
        (["plan2explore.explorer=random"], WHILE_EXPLORING),
        (["plan2explore.reward_gradient_to_model=True"], ALL_PARTS),
        (["plan2explore.explore_env_steps=20"], AFTER_EXPLORING),
    ],
    ids=["exploring", "at random", "asked to", "done exploring"],
)
def test_while_exploring_rewards_change_only_the_reward_model_and_the_task_behaviour(settings, changed_parts):
    """Train two agents on opposite rewards; `changed_parts` are the networks whose weights then differ."""
    after = []
    for sign in (1, -1):
        agent = fill(make_plan2explore(CoinEnv(), "dreamer.clip_grad=1e6", *settings), episodes=3)
        learner = agent.active(agent.trainer.env_steps)
        torch.manual_seed(1)
        for _ in range(2):
            batch = agent.trainer.learner.sample()
            learner.update(batch._replace(reward=sign * batch.reward))
        parts = parameters(agent)
        reward_model = {name for name in parts["model"] if name.startswith("reward_model")}
        parts["reward_model"] = {name: parts["model"].pop(name) for name in reward_model}
        after.append(parts)
    assert changed(*after) == changed_parts


# The optimisers


def test_each_optimiser_has_its_learning_rate():
    rates = ["model=1e-3", "actor=2e-3", "critic=3e-3"]
    overrides = [f"dreamer.{rate.replace('=', '_learning_rate=')}" for rate in rates]
    agent = make_plan2explore(ToyEnv(), *overrides, "plan2explore.one_step_model_learning_rate=4e-3")
    assert {name: optimizer.adam.param_groups[0]["lr"] for name, optimizer in agent.optimizers.items()} == {
        "model": 1e-3,
        "actor": 2e-3,
        "critic": 3e-3,
        "one_step_model": 4e-3,
        "exploration_actor": 2e-3,
        "exploration_critic": 3e-3,
    }


def test_after_exploring_only_dreamer_is_updated():
    """From `explore_env_steps` on, ensemble and explorer do not change. Without a limit exploration does not end."""
    agent = fill(make_plan2explore(CoinEnv(), "plan2explore.explore_env_steps=60"), episodes=3)
    before = parameters(agent)
    assert agent.active(59) is agent and agent.active(60) is agent.dreamer and type(agent.dreamer) is Dreamer
    agent.active(agent.trainer.env_steps).update(agent.trainer.learner.sample())
    assert changed(before, parameters(agent)) == {"model", "actor", "critic"}
    assert make_plan2explore(ToyEnv()).active(10**8).networks.keys() == agent.networks.keys()


def test_the_clipping_bites_by_the_joint_norm_of_all_members():
    """All members' gradients are scaled by the same factor, and the logged norm is the one before clipping."""
    batch, feature, embedding = transitions(IS_FIRST)
    agents = [make_plan2explore(ToyEnv(), f"dreamer.clip_grad={clip_grad}") for clip_grad in (1e12, 0.5)]
    (free, raw), (cut, clipped) = (learn_without_moving(each, batch, feature, 1e4 * embedding) for each in agents)
    norm = math.sqrt(sum(part.square().sum().item() for part in raw))
    assert norm > 1e5
    assert free["grad_norm/one_step_model"] == cut["grad_norm/one_step_model"] == pytest.approx(norm, rel=1e-4)
    torch.testing.assert_close(clipped, [whole * 0.5 / norm for whole in raw], rtol=1e-3, atol=1e-9)


# The intrinsic reward


def random_imagination(n=6, horizon=4):
    torch.manual_seed(2)
    feature, action = torch.randn(n, horizon + 1, F), torch.randn(n, horizon, A)
    return Imagination(feature.requires_grad_(), action.requires_grad_(), torch.zeros(()))


@pytest.mark.parametrize("measure, scale", [("variance", 1e4), ("variance", 2.0), ("std", 1.0)])
def test_intrinsic_reward_is_the_disagreement_about_where_an_action_leads(measure, scale):
    """The reward at index τ - 1 and its gradient depend on s_{τ-1} and a_τ only."""
    settings = f"plan2explore.disagreement={measure}", f"plan2explore.intrinsic_reward_scale={scale}"
    agent, imagination = make_plan2explore(ToyEnv(), *settings), random_imagination()
    reward = agent.novelty.reward(imagination)
    assert reward.shape == (6, 4)
    for n, tau in [(0, 1), (3, 2), (5, 4)]:
        mean = agent.novelty.one_step_model(imagination.feature[n, [tau - 1]], imagination.action[n, [tau - 1]]).mean[
            :, 0
        ]
        spread = mean.var(0) if measure == "variance" else mean.var(0).sqrt()
        torch.testing.assert_close(reward[n, tau - 1], scale * spread.sum() / E)
        gradients = torch.autograd.grad(reward[n, tau - 1], imagination[:2], retain_graph=True)
        assert [gradient.abs().sum(-1).nonzero().tolist() for gradient in gradients] == 2 * [[[n, tau - 1]]]


def test_disagreement_gradient_does_not_change_the_intrinsic_reward(agent):
    imagination, reward = random_imagination(), []
    for asked in (True, False):
        agent.novelty.config.disagreement_gradient = asked
        reward.append(agent.novelty.reward(imagination))
    assert torch.equal(*reward) and [each.requires_grad for each in reward] == [True, False]
    assert agent.update(agent.trainer.learner.sample())[0]["grad_norm/exploration_actor"] > 0


class Downhill(ToyEnv):
    """The reward is the negative action, so task and explorer prefer opposite actions."""

    def reward(self, action):
        return -float(action[0])


def test_the_explorer_learns_to_go_where_the_members_disagree_and_the_task_does_not():
    """The members' means are k · (a + 1), so they disagree most about a = 1."""
    settings = [f"dreamer.{part}_learning_rate=5e-3" for part in ("model", "actor", "critic")]
    settings += ["plan2explore.intrinsic_reward_scale=1", "dreamer.agent.actor.init_std=0.5"]
    settings += ["dreamer.batch_size=6", "dreamer.batch_length=5"]
    agent = fill(make_plan2explore(Downhill(), *settings), episodes=5)
    layer = EnsembleLinear(K, F + A, E)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, F:] = layer.bias[:] = torch.arange(float(K))[:, None, None]
    agent.novelty.one_step_model.network = layer
    for _ in range(30):
        agent.update(agent.trainer.learner.sample())
    feature = learn_model(agent.dreamer, agent.trainer.learner.sample())[0].feature
    explored, exploited = (each.actor(feature).mode.mean() for each in (agent.explorer, agent.dreamer.actor_critic))
    assert explored > 0.7 and exploited < 0.2


def test_disagreement_falls_only_for_transitions_that_were_learned():
    agent = make_plan2explore(ToyEnv(), "plan2explore.one_step_model_learning_rate=2e-3")
    generator = torch.Generator().manual_seed(0)

    def transitions_on(side):
        batch, feature, _ = transitions(0, 32, 6, generator)
        feature[..., 0] = side * (2 + feature[..., 0].abs())
        embedding = shifted((feature[..., :4].sum(-1, keepdim=True) + batch.action).sin(), -1)
        return batch, feature, embedding.expand(-1, -1, E)

    def mean_disagreement(side):
        batch, feature, _ = transitions_on(side)
        return disagreement(agent.novelty.one_step_model(feature, batch.action).mean, "variance").mean().item()

    at_first = mean_disagreement(1)
    reported = []
    for _ in range(150):
        metrics = learn_one_step(agent, *transitions_on(1))
        reported.append(metrics["exploration/disagreement_replay"].item())
    assert mean_disagreement(1) < 0.3 * at_first and mean_disagreement(-1) > 2 * mean_disagreement(1)
    assert reported[-1] < 0.3 * reported[0]


# One update


@pytest.mark.parametrize("explorer", ["disagreement", "random"])
def test_both_behaviours_learn_from_the_same_states_with_different_rewards(agent, monkeypatch, explorer):
    """The ensemble learns from posteriors and embeddings of the same update. Random exploration changes only the
    collection."""
    agent.config.explorer = explorer
    behavior_calls = spy(monkeypatch, agent.dreamer, "learn_behavior")
    model_steps, observe_calls = (
        spy(monkeypatch, agent.dreamer.model_optimizer, "step"),
        spy(monkeypatch, agent.model.rssm, "observe"),
    )
    ensemble_calls, batch = spy(monkeypatch, agent.novelty, "learn"), agent.trainer.learner.sample()
    assert batch.is_terminal.any()
    agent.update(batch)
    ((actor_critic, start, is_terminal, reward), _), ((explorer, *others, exploration_reward), _) = behavior_calls
    assert actor_critic is agent.dreamer.actor_critic and explorer is agent.explorer
    assert torch.equal(others[1], is_terminal)
    assert torch.equal(others[0].feature, start.feature) and not start.feature.requires_grad
    assert torch.equal(is_terminal, batch.is_terminal.flatten())
    assert reward == agent.dreamer.predicted_reward and exploration_reward == agent.novelty.reward
    ((embedding, *_), (_, posterior)), ((learned_batch, states, target), _) = observe_calls[0], ensemble_calls[0]
    assert len(model_steps) == len(observe_calls) == len(ensemble_calls) == 1
    assert learned_batch is batch and not states.feature.requires_grad and not target.requires_grad
    assert torch.equal(states.feature, posterior.feature) and torch.equal(target, embedding)
    assert torch.equal(start.feature, posterior.feature.flatten(0, 1))


def test_target_stochastic_predicts_the_next_latent_state(monkeypatch):
    """As in DreamerV2's code, the members predict z of the next step instead of the embedding."""
    agent = fill(make_plan2explore(CoinEnv(), "plan2explore.target=stochastic"), episodes=3)
    ensemble_calls = spy(monkeypatch, agent.novelty.one_step_model, "forward")
    batch = agent.trainer.learner.sample()
    posterior, embedding, _ = learn_model(agent.dreamer, batch)
    metrics = agent.novelty.learn(batch, posterior, embedding)
    ((_, prediction),) = ensemble_calls
    log_prob, counted = prediction.log_prob(posterior.stochastic[:, 1:]), batch.is_first[:, 1:] == 0
    torch.testing.assert_close(metrics["loss/one_step_model"], -log_prob[:, counted].mean())
    assert agent.novelty.one_step_model.network[-1].weight.shape[-1] == 4


@pytest.mark.parametrize("version", [2, 3])
def test_explorer_works_with_dreamer_v2_and_v3(version):
    """Task and explorer each have their own slow critic and, in DreamerV3, their own return scale."""
    names = ["plan2explore", f"dreamer-v{version}"]
    small = ["plan2explore.num_ensemble=3", "plan2explore.one_step_model.hidden_size=16", "dreamer.classes=4"]
    config = load_config(names, SMALL + [f"parameters.{setting}" for setting in (*small, "dreamer.warm_up=0")])
    agent = fill(make_agent(config, CoinEnv(terminates=True)), episodes=3)
    scales = ["return_scale"] if version == 3 else []
    both = ["actor", "critic", "slow_critic", *scales]
    expected = ["model", *both, "one_step_model", *(f"exploration_{part}" for part in both)]
    assert list(agent.networks) == expected
    agent.update(agent.trainer.learner.sample())
    before = parameters(agent)
    metrics, feature = agent.update(agent.trainer.learner.sample())
    slow_parts = {"slow_critic", "exploration_slow_critic"} if version == 3 else set()
    learning = {"model", "actor", "critic", *PARTS}
    assert changed(before, parameters(agent)) == learning | slow_parts
    assert all(value.isfinite() for value in metrics.values()) and feature.shape == (8, 10, 32)
    assert metrics["loss/exploration_actor"] != metrics["loss/actor"]


def test_iteration_logs_dreamers_metrics_and_exploration_metrics():
    agent, dreamer = make_plan2explore(CoinEnv()), make_dreamer(CoinEnv())
    for learner in (agent, dreamer):
        fill(learner, episodes=2).trainer.logger.rows.clear()
        learner.trainer.learner.owed += 2
        learner.trainer.learn(learner)
    rows, tags = agent.trainer.logger.rows, {tag for tag, *_ in dreamer.trainer.logger.rows}
    values = {tag: value for tag, value, _ in rows}
    assert len(values) == len(rows) and tags >= {"loss/model", "loss/actor", "behavior/entropy"}
    assert values.keys() == tags | NEW_TAGS and not tags & NEW_TAGS
    assert all(math.isfinite(value) for value in values.values())
    assert all(values[f"loss/{part}"] != values[f"loss/exploration_{part}"] for part in ("actor", "critic"))


class Discrete(ToyEnv):
    def __init__(self):
        super().__init__()
        self.action_space = ActionParts([3])
        self.action_space.seed(0)


def test_explorer_learns_with_discrete_actions(monkeypatch):
    """The gradient of the disagreement reaches the actor through straight-through one-hot samples."""
    agent = make_plan2explore(Discrete())
    actions = collect_actions(monkeypatch, agent, episodes=3)
    assert agent.explorer.actor.discrete
    assert agent.update(agent.trainer.learner.sample())[0]["grad_norm/exploration_actor"] > 0
    assert (np.sort(actions, 1) == [0, 0, 1]).all()


# Which policy collects and evaluates


def test_random_exploration_is_uniform_over_the_actions(monkeypatch):
    agent = make_plan2explore(ToyEnv(length=500), "plan2explore.explorer=random")
    actions = np.sort(collect_actions(monkeypatch, agent, episodes=4)[:, 0])
    assert np.abs(actions - np.linspace(-1, 1, 2000)).max() < 0.08


def record_policies(agent, monkeypatch):
    """Return a list that fills with (activity, actor, noise) of each episode; actor and noise are None for random
    actions."""
    actors = {"actor": agent.actor, "exploration_actor": agent.explorer.actor}
    played, activities = [], []
    monkeypatch.setattr(agent.trainer.progress, "set_activity", activities.append)

    def same(actor, other):
        return all(map(torch.equal, actor.state_dict().values(), other.state_dict().values()))

    def play(env, policy):
        who = (None, None)
        if isinstance(policy, Policy):  # an evaluation plays a copy
            (name,) = (name for name, actor in actors.items() if same(actor, policy.actor))
            who = name, policy.exploration_noise
        played.append((activities[-1], *who))
        return run_episode(env, policy)

    for module in ("dreamer.training.evaluation", "dreamer.training.collect"):
        monkeypatch.setattr(f"{module}.run_episode", play)
    return played


@pytest.mark.parametrize(
    "limit, iterations, explorer",
    [*((*case, "disagreement") for case in [(72, 2), (71, 2), (73, 3), (24, 0), (1, 0)]), (72, 2, "random")],
)
def test_schedule(limit, iterations, explorer, monkeypatch):
    """The explorer collects until the env steps (24 per episode) reach the limit, then the task's actor does. All
    evaluations use the task's actor without noise."""
    settings = [f"plan2explore.explore_env_steps={limit}", f"plan2explore.explorer={explorer}"]
    settings += ["dreamer.seed_episodes=1", "dreamer.train_iterations=4", "dreamer.collect_interval=1"]
    agent = make_plan2explore(ToyEnv(length=12, env_steps=2), *settings)
    played = record_policies(agent, monkeypatch)
    train(agent, ToyEnv(length=12, seed=1, env_steps=2))
    explores = ("collecting", "exploration_actor", 0.3) if explorer == "disagreement" else ("collecting", None, None)
    collects, evaluates = ("collecting", "actor", 0.3), ("evaluating", "actor", None)
    seeded, done = ("collecting", None, None), 4 - iterations
    assert played == [seeded, *iterations * [explores, evaluates], *done * [collects, evaluates]]
    logger = agent.trainer.logger
    logged_steps = {tag: [step for name, _, step in logger.rows if name == tag] for tag in NEW_TAGS}
    assert logged_steps == dict.fromkeys(NEW_TAGS, [24 * i for i in range(1, iterations + 1)])
    assert len(logger.of("loss/actor")) == 4
