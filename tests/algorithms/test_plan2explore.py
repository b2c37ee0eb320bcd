import itertools
import math

import numpy as np
import pytest
import torch

from dreamer.algorithms.actor_critic import Imagination
from dreamer.algorithms.policy import Policy
from dreamer.collect import run_episode
from dreamer.envs.wrappers import OneHot
from dreamer.modules.ensemble import OneStepModel, disagreement
from dreamer.modules.layers import EnsembleLinear
from dreamer.replay import Batch
from tests.toys import (
    CoinEnv,
    ToyEnv,
    changed,
    evaluate,
    fill,
    make_dreamer,
    make_evaluator,
    make_plan2explore,
    parameters,
)

F, A, E, K = 20, 1, 32, 5  # the sizes of `make_plan2explore`
FLOOR = 0.5 * E * math.log(2 * math.pi)  # of a unit Normal's negative log-likelihood
NEW_TAGS = {
    "loss/one_step_model",
    "loss/exploration_actor",
    "loss/exploration_critic",
    "grad_norm/one_step_model",
    "grad_norm/exploration_actor",
    "grad_norm/exploration_critic",
    "behavior/exploration_entropy",
    "behavior/exploration_imagined_return",
    "behavior/exploration_value",
    "exploration/intrinsic_reward",
    "exploration/disagreement_replay",
}


@pytest.fixture
def agent():
    """With a continue model and some episodes that end."""
    env = CoinEnv(terminates=True)
    agent = make_plan2explore(env, "dreamer.use_continue_flag=True")
    fill(agent, env, episodes=5)
    return agent


def done_exploring(agent):
    agent.exploration.explore_env_steps = agent.env_steps
    return agent


def spy(monkeypatch, target, name):
    """The arguments and results of all calls of target.name, as they come in."""
    calls, original = [], getattr(target, name)

    def wrapped(*args, **keywords):
        result = original(*args, **keywords)
        calls.append((args, result))
        return result

    monkeypatch.setattr(target, name, wrapped)
    return calls


def collected(monkeypatch, agent, env, episodes):
    """The actions that what collects now takes."""
    added = spy(monkeypatch, agent.buffer, "add")
    agent.environment_interaction(env, agent.collection_policy(env), episodes)
    return np.stack([step.action for (step,), _ in added if not step.is_first])


def transitions(is_first, batch_size=8, batch_length=10, generator=None):
    """A batch of which only actions and `is_first` mean anything; features and embeddings, all random."""
    shape = batch_size, batch_length
    generator = generator or torch.Generator().manual_seed(0)
    random = [torch.randn(*shape, size, generator=generator) for size in (A, F, E)]
    is_first = torch.as_tensor(is_first, dtype=torch.float32).expand(shape).clone()
    empty = torch.zeros(shape)
    return Batch(empty, random[0], empty, is_first, empty), *random[1:]


# Alignment: which action, which state and which target belong together


def shifted(part, steps):
    """What stands at t + steps, at t."""
    return part.roll(-steps, 1)


PARTS = "action", "feature", "target"


@pytest.mark.parametrize("off", [None, *itertools.product(PARTS, (-1, 1))], ids=str)
def test_only_the_right_time_index_foretells_the_next_embedding(off):
    """What is seen next is a coin in s_t, signed by the action that leaves it: who lacks either knows nothing."""
    agent = make_plan2explore(ToyEnv(), "plan2explore.one_step_model_learning_rate=2e-3")
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(80):
        batch, noise, _ = transitions(0, 64, 6, generator)
        coin, sign = noise[..., :1].sign(), batch.action.sign()
        parts = {"action": sign, "feature": torch.cat([coin, torch.zeros(64, 6, F - 1)], -1)}
        parts["target"] = (sign * shifted(coin, -1)).expand(-1, -1, E)
        if off:
            parts[off[0]] = shifted(parts[off[0]], off[1])
        metrics = agent.one_step_learning(batch._replace(action=parts["action"]), parts["feature"], parts["target"])
        losses.append(metrics["loss/one_step_model"].item())
    reached, constant = np.mean(losses[-10:]), FLOOR + E / 2
    if off:
        assert reached > constant - 2
    else:
        assert reached < FLOOR + 0.5


class EchoEnv(ToyEnv):
    """The observation is the action that led to it, and at first as random as they are."""

    def reset(self, *, seed=None, options=None):
        self.last = self.action_space.sample()
        return super().reset()

    def step(self, action):
        self.last = action
        return super().step(action)

    def observe(self):
        return self.last


@pytest.mark.parametrize("off", [0, -1, 1])
def test_what_an_action_leads_to_is_foretold_through_replay_and_filter(off, monkeypatch):
    """From the environment to the loss: in a world model that stands still, only a_{t+1} tells o_{t+1}."""
    agent = make_plan2explore(EchoEnv(), "plan2explore.one_step_model_learning_rate=4e-3", "dreamer.batch_size=32")
    fill(agent, EchoEnv(), episodes=20)
    monkeypatch.setattr(agent.model_optimizer, "step", lambda loss: torch.zeros(()))
    with torch.no_grad():
        for parameter in agent.model.encoder.parameters():
            parameter *= 4
        constant = FLOOR + agent.model.encoder(torch.linspace(-1, 1, 99)[:, None]).var(0).sum().item() / 2
    assert constant > FLOOR + 5
    losses = []
    for _ in range(80):
        batch = agent.sample()
        posterior, embedding, _ = agent.dynamics_learning(batch)
        shift = batch._replace(action=shifted(batch.action, off))
        losses.append(agent.one_step_learning(shift, posterior.feature, embedding)["loss/one_step_model"].item())
    reached = np.mean(losses[-20:])
    if off:
        assert reached > constant - 1.5
    else:
        assert reached < FLOOR + 1


def test_the_ensemble_learns_from_posteriors_and_embeddings_of_the_same_update(agent, monkeypatch):
    observed = spy(monkeypatch, agent.model.rssm, "observe")
    learned = spy(monkeypatch, agent, "one_step_learning")
    batch = agent.sample()
    agent.update(batch)
    ((embedding, _, _), (_, posterior)), ((given, feature, target), _) = observed[0], learned[0]
    assert len(observed) == len(learned) == 1
    assert given is batch and not feature.requires_grad and not target.requires_grad
    assert torch.equal(feature, posterior.feature) and torch.equal(target, embedding)


# Where an episode ends


def learn_without_moving(agent, batch, feature, embedding):
    """Metrics and gradients of `one_step_learning`; every parameter stays what it is."""
    agent.one_step_optimizer.adam.step = lambda: None
    metrics = agent.one_step_learning(batch, feature, embedding)
    return {name: value.item() for name, value in metrics.items()}, [
        part.grad.clone() for part in agent.one_step_optimizer.parameters
    ]


IS_FIRST = [1, 0, 0, 1, 0, 1, 1, 0, 0, 1]


def test_nothing_is_learned_across_an_episodes_boundary(agent):
    """Neither from the step before it, nor from the action and the embedding at it."""
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
def test_every_other_transition_counts_the_same(agent, measure):
    """The metrics are means over them alone, and so is the gradient."""
    agent.exploration.disagreement = measure
    batch, feature, embedding = transitions(IS_FIRST)
    metrics, gradients = learn_without_moving(agent, batch, feature, embedding)
    counted = [t for t in range(1, 10) if not IS_FIRST[t]]
    prediction = agent.one_step_model(feature[:, [t - 1 for t in counted]], batch.action[:, counted])
    error = (prediction.mean - embedding[:, counted]).square().sum(-1) / 2 + FLOOR
    assert metrics["loss/one_step_model"] == pytest.approx(error.mean().item(), rel=1e-5)
    disagreed = disagreement(prediction.mean, measure).mean().item()
    assert metrics["exploration/disagreement_replay"] == pytest.approx(disagreed, rel=1e-5)
    expected = torch.autograd.grad(error.mean((1, 2)).sum(), agent.one_step_optimizer.parameters)
    for one, same in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, same)


def test_a_batch_of_boundaries_alone(agent):
    before = parameters(agent)
    assert agent.one_step_learning(*transitions(1)) == {
        "loss/one_step_model": 0,
        "grad_norm/one_step_model": 0,
        "exploration/disagreement_replay": 0,
    }
    assert not changed(before, parameters(agent))


# What reaches the world model


def reached_by_the_reward_loss(agent):
    """The parts of the world model that the gradient of the reward loss reaches."""
    batch = agent.sample()
    prior, posterior = agent.model.rssm.observe(agent.model.encoder(batch.observation), batch.action, batch.is_first)
    named = dict(agent.model.named_parameters())
    loss = agent.model_losses(batch, prior, posterior)["loss/reward"]
    gradients = torch.autograd.grad(loss, named.values(), allow_unused=True)
    found = zip(named, gradients, strict=True)
    return {name.split(".")[0] for name, gradient in found if gradient is not None and gradient.any()}


@pytest.mark.parametrize("explorer", ["disagreement", "random"])
def test_while_exploring_rewards_shape_the_reward_model_alone(agent, explorer):
    agent.exploration.explorer = explorer
    assert reached_by_the_reward_loss(agent) == {"reward_model"}


@pytest.mark.parametrize("which", ["dreamer", "asked to", "done exploring"])
def test_otherwise_rewards_shape_the_world_model(which):
    env, asked = CoinEnv(), f"plan2explore.reward_gradient_to_model={which == 'asked to'}"
    agent = make_dreamer(env) if which == "dreamer" else make_plan2explore(env, asked)
    fill(agent, env, episodes=1)
    if which == "done exploring":
        done_exploring(agent)
    assert reached_by_the_reward_loss(agent) == {"encoder", "rssm", "reward_model"}


@pytest.mark.parametrize("asked", [False, True])
def test_other_rewards_explore_the_same(asked):
    """Nothing that collects or that imagines knows the task: rewards move the task's behaviour alone."""
    env, after = CoinEnv(), []
    for sign in (1, -1):
        agent = make_plan2explore(env, f"plan2explore.reward_gradient_to_model={asked}", "dreamer.clip_grad=1e6")
        env.random = np.random.default_rng(0)
        env.action_space.seed(0)
        fill(agent, env, episodes=3)
        torch.manual_seed(1)
        for _ in range(2):
            batch = agent.sample()
            agent.update(batch._replace(reward=sign * batch.reward))
        parts = parameters(agent)
        reward_model = {name for name in parts["model"] if name.startswith("reward_model")}
        parts["reward_model"] = {name: parts["model"].pop(name) for name in reward_model}
        after.append(parts)
    task = {"reward_model", "actor", "critic"}
    assert changed(*after) == (set(after[0]) if asked else task)


# Which parameters a loss moves


def test_each_loss_moves_exactly_its_own_parameters(agent, monkeypatch):
    moved = []
    for name, optimizer in agent.optimizers.items():

        def step(loss, name=name, original=optimizer.step, **keywords):
            before = parameters(agent)
            norm = original(loss, **keywords)
            moved.append((name, changed(before, parameters(agent))))
            return norm

        monkeypatch.setattr(optimizer, "step", step)
    agent.update(agent.sample())
    parts = ["model", "actor", "critic", "one_step_model", "exploration_actor", "exploration_critic"]
    assert moved == [(part, {part}) for part in parts]


def test_every_parameter_learns(agent):
    """Every member, and every layer of the exploration's actor and critic."""
    agent.update(agent.sample())
    for behavior in (agent.behavior, agent.explorer):
        for module in (behavior.actor, behavior.critic):
            assert all(parameter.grad.any() for parameter in module.parameters())
    for parameter in agent.one_step_model.parameters():
        assert all(member.any() for member in parameter.grad)


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


def test_after_exploring_it_goes_on_as_dreamer():
    """The ensemble and the explorer stand still, and everything else moves as Dreamer moves it."""
    env = CoinEnv()
    agent, dreamer = make_plan2explore(env), make_dreamer(env)
    fill(agent, env, episodes=3)
    done_exploring(agent)
    dreamer.model.load_state_dict(agent.model.state_dict())
    for part in ("actor", "critic"):
        getattr(dreamer.behavior, part).load_state_dict(getattr(agent.behavior, part).state_dict())
    before, batches = parameters(agent), [agent.sample() for _ in range(2)]
    metrics = []
    for learner in (agent, dreamer):
        torch.manual_seed(0)
        metrics += [learner.update(batch) for batch in batches]
    assert changed(before, parameters(agent)) == {"model", "actor", "critic"}
    assert not changed(parameters(dreamer), parameters(agent))
    torch.testing.assert_close(metrics[:2], metrics[2:], rtol=0, atol=0)


def test_the_clipping_bites_on_every_member_alike():
    """By the norm over all members: errors of 1e4 are cut to clip_grad, and the norm from before is told."""
    batch, feature, embedding = transitions(IS_FIRST)
    agents = [make_plan2explore(ToyEnv(), f"dreamer.clip_grad={clip_grad}") for clip_grad in (1e12, 0.5)]
    (free, raw), (cut, clipped) = (learn_without_moving(each, batch, feature, 1e4 * embedding) for each in agents)
    norm = math.sqrt(sum(part.square().sum().item() for part in raw))
    assert norm > 1e5
    assert free["grad_norm/one_step_model"] == cut["grad_norm/one_step_model"] == pytest.approx(norm, rel=1e-4)
    for part, whole in zip(clipped, raw, strict=True):
        assert all(member.any() for member in whole)
        torch.testing.assert_close(part, whole * 0.5 / norm, rtol=1e-3, atol=1e-9)
    assert math.sqrt(sum(part.square().sum().item() for part in clipped)) == pytest.approx(0.5, rel=1e-3)


# The intrinsic reward


def random_imagination(n=6, horizon=4):
    torch.manual_seed(2)
    feature, action = torch.randn(n, horizon + 1, F), torch.randn(n, horizon, A)
    return Imagination(feature.requires_grad_(), action.requires_grad_(), torch.zeros(()))


@pytest.mark.parametrize("measure, scale", [("variance", 1e4), ("variance", 2.0), ("std", 1.0)])
def test_intrinsic_reward_is_the_disagreement_about_where_an_action_leads(measure, scale):
    """At index τ - 1: of s_{τ-1} and a_τ, scaled; and its gradient reaches both of them and nothing else."""
    settings = f"plan2explore.disagreement={measure}", f"plan2explore.intrinsic_reward_scale={scale}"
    agent, imagination = make_plan2explore(ToyEnv(), *settings), random_imagination()
    reward = agent.intrinsic_reward(imagination)
    assert reward.shape == (6, 4)
    for n, tau in [(0, 1), (3, 2), (5, 4)]:
        mean = agent.one_step_model(imagination.feature[n, [tau - 1]], imagination.action[n, [tau - 1]]).mean[:, 0]
        apart = mean.var(0) if measure == "variance" else mean.var(0).sqrt()
        torch.testing.assert_close(reward[n, tau - 1], scale * apart.sum() / E)
        gradients = torch.autograd.grad(reward[n, tau - 1], imagination[:2], retain_graph=True)
        assert [gradient.abs().sum(-1).nonzero().tolist() for gradient in gradients] == 2 * [[[n, tau - 1]]]


class Downhill(ToyEnv):
    """The task wants what the explorer will not."""

    def reward(self, action):
        return -float(action[0])


def test_the_explorer_learns_to_go_where_the_members_disagree_and_the_task_does_not():
    """Members whose means are k · (a + 1) disagree about a = 1 most, by gradients that pass through them."""
    env = Downhill()
    agent = make_plan2explore(
        env,
        "plan2explore.intrinsic_reward_scale=1",
        "dreamer.actor_learning_rate=3e-3",
        "dreamer.critic_learning_rate=3e-3",
        "dreamer.model_learning_rate=3e-3",
        "dreamer.agent.actor.init_std=0.5",
        "dreamer.batch_size=6",
        "dreamer.batch_length=5",
    )
    fill(agent, env, episodes=5)
    layer = EnsembleLinear(K, F + A, E)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, F:] = layer.bias[:] = torch.arange(float(K))[:, None, None]
    agent.one_step_model.network = layer
    for _ in range(50):
        agent.update(agent.sample())
    feature = agent.dynamics_learning(agent.sample())[0].feature
    explored, exploited = (behavior.actor(feature).mode.mean() for behavior in (agent.explorer, agent.behavior))
    assert explored > 0.7 and exploited < 0.2


def test_disagreement_falls_on_what_has_been_seen_and_not_elsewhere():
    agent = make_plan2explore(ToyEnv(), "plan2explore.one_step_model_learning_rate=2e-3")
    generator = torch.Generator().manual_seed(0)

    def part_of_the_world(side):
        batch, feature, _ = transitions(0, 32, 6, generator)
        feature[..., 0] = side * (2 + feature[..., 0].abs())
        embedding = shifted((feature[..., :4].sum(-1, keepdim=True) + batch.action).sin(), -1)
        return batch, feature, embedding.expand(-1, -1, E)

    def disagreed(side):
        batch, feature, _ = part_of_the_world(side)
        return disagreement(agent.one_step_model(feature, batch.action).mean, "variance").mean().item()

    at_first = disagreed(1)
    reported = []
    for _ in range(150):
        metrics = agent.one_step_learning(*part_of_the_world(1))
        reported.append(metrics["exploration/disagreement_replay"].item())
    assert disagreed(1) < 0.3 * at_first and disagreed(-1) > 2 * disagreed(1)
    assert reported[-1] < 0.3 * reported[0]


# One update


@pytest.mark.parametrize("explorer", ["disagreement", "random"])
def test_both_behaviours_learn_from_the_same_states_each_by_its_own_reward(agent, monkeypatch, explorer):
    """Random exploration changes what collects, and nothing of what is learned."""
    agent.exploration.explorer = explorer
    imagined, learned = spy(monkeypatch, agent, "imagine"), spy(monkeypatch, agent, "behavior_learning")
    stepped = spy(monkeypatch, agent.model_optimizer, "step")
    batch = agent.sample()
    assert batch.is_terminal.any()
    agent.update(batch)
    assert len(stepped) == 1
    ((actor, start), _), ((exploration_actor, exploration_start), _) = imagined
    assert actor is agent.behavior.actor and exploration_actor is agent.explorer.actor
    assert all(torch.equal(*parts) for parts in zip(start, exploration_start, strict=True))
    assert not any(part.requires_grad for part in start)
    (task, _), (exploration, _) = learned
    assert task[0] is agent.behavior and task[3] == agent.predicted_reward
    assert exploration[0] is agent.explorer and exploration[3] == agent.intrinsic_reward
    assert torch.equal(task[2], exploration[2]) and torch.equal(task[2], 1 - batch.is_terminal.flatten())


def test_an_iteration_logs_dreamers_tags_and_those_of_the_exploration():
    env = CoinEnv()
    agent, dreamer = make_plan2explore(env, "dreamer.collect_interval=2"), make_dreamer(env, "collect_interval=2")
    for learner in (agent, dreamer):
        fill(learner, env, episodes=2)
        learner.logger.rows.clear()
        learner.learn()
    values = {tag: value for tag, value, _ in agent.logger.rows}
    tags = {tag for tag, _, _ in dreamer.logger.rows}
    assert len(values) == len(agent.logger.rows) and tags >= {"loss/model", "loss/actor", "behavior/entropy"}
    assert values.keys() == tags | NEW_TAGS and not tags & NEW_TAGS
    assert all(math.isfinite(value) for value in values.values())
    assert all(values[f"loss/{part}"] != values[f"loss/exploration_{part}"] for part in ("actor", "critic"))


class Discrete(ToyEnv):
    def __init__(self):
        super().__init__()
        self.action_space = OneHot(3)
        self.action_space.seed(0)


def test_explores_with_discrete_actions(monkeypatch):
    """The gradient of the disagreement reaches the actor straight through the one-hot samples."""
    agent = make_plan2explore(env := Discrete())
    actions = collected(monkeypatch, agent, env, episodes=3)
    assert agent.explorer.actor.discrete
    assert agent.update(agent.sample())["grad_norm/exploration_actor"] > 0
    assert (np.sort(actions, 1) == [0, 0, 1]).all()


def test_the_six_networks_share_nothing(agent):
    modules = [agent.model, agent.one_step_model]
    modules += [module for behavior in (agent.behavior, agent.explorer) for module in behavior[:2]]
    pointers = [parameter.data_ptr() for module in modules for parameter in module.parameters()]
    assert isinstance(agent.one_step_model, OneStepModel) and len(set(pointers)) == len(pointers)


# Who plays


def test_the_explorer_collects_with_exploration_noise(agent):
    policy = agent.collection_policy(CoinEnv())
    assert isinstance(policy, Policy) and policy.actor is agent.explorer.actor
    assert policy.exploration_noise == agent.config.exploration_noise == 0.3


def test_random_exploration_is_uniform_over_the_actions(monkeypatch):
    agent = make_plan2explore(env := ToyEnv(length=500), "plan2explore.explorer=random")
    actions = np.sort(collected(monkeypatch, agent, env, episodes=4)[:, 0])
    assert np.abs(actions - np.linspace(-1, 1, 2000)).max() < 0.08


@pytest.mark.parametrize("explorer", ["disagreement", "random"])
def test_after_exploring_the_tasks_actor_collects_with_exploration_noise(explorer):
    agent = make_plan2explore(env := ToyEnv(), f"plan2explore.explorer={explorer}", "plan2explore.explore_env_steps=7")
    for env_steps, exploring in ((0, True), (6, True), (7, False), (8, False)):
        agent.env_steps = env_steps
        assert agent.exploring == exploring
    policy = agent.collection_policy(env)
    assert policy.actor is agent.behavior.actor and policy.exploration_noise == 0.3


@pytest.mark.parametrize("steps", [None, 10**9])
def test_without_a_limit_or_before_it_exploration_does_not_end(steps):
    agent = make_plan2explore(ToyEnv(), f"plan2explore.explore_env_steps={'null' if steps is None else steps}")
    agent.env_steps = 10**8
    assert agent.exploring


def same(weights, others):
    return all(torch.equal(value, others[name]) for name, value in weights.items())


def played_by(agent, monkeypatch):
    """Who plays which phase, as it goes: [("collecting", actor, noise), …]; None for random actions."""
    actors, played = {"actor": agent.behavior.actor, "exploration_actor": agent.explorer.actor}, []

    def play(env, policy):
        who = (None, None)
        if isinstance(policy, Policy):  # an evaluation plays a copy
            weights = {name: actor.state_dict() for name, actor in actors.items()}
            (name,) = (name for name in actors if same(weights[name], policy.actor.state_dict()))
            who = name, policy.exploration_noise
        played.append((agent.progress.phases[-1], *who))
        return run_episode(env, policy)

    for module in ("dreamer.evaluator", "dreamer.collect"):  # to evaluate, to collect
        monkeypatch.setattr(f"{module}.run_episode", play)
    return played


def test_evaluation_is_of_the_tasks_actor_without_noise(agent, monkeypatch):
    """Zero-shot while it explores, and so ever after."""
    played = played_by(agent, monkeypatch)
    for explorer in ("disagreement", "random"):
        agent.exploration.explorer = explorer
        evaluate(agent, ToyEnv())
    evaluate(done_exploring(agent), ToyEnv())
    assert played == 3 * [("evaluating", "actor", None)]


class Repeats(ToyEnv):
    """Two env steps for each action."""

    def step(self, action):
        *result, info = super().step(action)
        return *result, {"env_steps": 2}


@pytest.mark.parametrize("limit, iterations", [(72, 2), (71, 2), (73, 3), (24, 0), (1, 0)])
@pytest.mark.parametrize("explorer", ["disagreement", "random"])
def test_schedule(monkeypatch, limit, iterations, explorer):
    """`iterations` of exploration, until env steps, not agent steps, reach the limit: 24 by each episode."""
    env = Repeats(length=12)
    agent = make_plan2explore(
        env,
        f"plan2explore.explore_env_steps={limit}",
        f"plan2explore.explorer={explorer}",
        "dreamer.seed_episodes=1",
        "dreamer.train_iterations=4",
        "dreamer.collect_interval=1",
    )
    played = played_by(agent, monkeypatch)
    agent.train(env, make_evaluator(agent, Repeats(length=12, seed=1)))
    explores = ("collecting", "exploration_actor", 0.3) if explorer == "disagreement" else ("collecting", None, None)
    collects, evaluates = ("collecting", "actor", 0.3), ("evaluating", "actor", None)
    seeded, done = ("collecting", None, None), 4 - iterations
    assert played == [seeded, *iterations * [explores, evaluates], *done * [collects, evaluates]]
    learned = {tag: [step for name, _, step in agent.logger.rows if name == tag] for tag in NEW_TAGS}
    assert learned == dict.fromkeys(NEW_TAGS, [24 * i for i in range(1, iterations + 1)])
    assert len(agent.logger.of("loss/actor")) == 4
