"""A run from its beginning to its end: the road of main.py."""

from argparse import Namespace

from dreamer.build import assemble_algorithm, build_actor_critic, build_replay, build_world_model
from dreamer.envs.make import make_train_env
from dreamer.training.run import running
from dreamer.training.trainer import Trainer


def run_training(options: Namespace) -> None:
    """Train an agent: a new one, or the one of a run that is resumed."""
    with running(options) as run:
        config, device, seed = run.config, run.device, run.config.operation.seed
        env = make_train_env(config.environment, seed)
        model = build_world_model(config, env, device)  # encoder, RSSM, decoder, reward model, continue model
        actor_critic = build_actor_critic(config, env, device)
        algorithm = assemble_algorithm(config, env, device, model, actor_critic)
        run.begin(env, algorithm)  # makes the folder: whatever cannot be made has failed before
        replay = build_replay(config, env, run.own_folder, seed, model.rssm)
        trainer = Trainer(config, algorithm, env, run.evaluations, replay, run.logger, run.progress)
        run.restore(trainer)
        trainer.run(run.checkpointer)
