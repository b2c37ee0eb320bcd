"""The README's example of a change works as printed. CITATION.cff and pyproject.toml are valid."""

import re
import shutil
import warnings
from functools import cache
from pathlib import Path
from types import FunctionType

import pytest
import torch
import yaml

from dreamer.algorithms import dreamer, dreamer_v2, dreamer_v3
from dreamer.config import load, schema
from tests import small_algorithms

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """Apply the README's diffs: to a copy of the configurations, and to the functions of the three classes."""
    text = (ROOT / "README.md").read_text().partition("## Change one idea")[2]
    changes = re.findall(r"`([\w./]+\.(?:py|yml))`[^`]*?```diff\n(.*?)```", text, flags=re.S)
    assert [file for file, _ in changes] == ["dreamer/algorithms/dreamer_v3.py", "configs/dreamer.yml"]
    (_, diff), (file, setting) = changes
    settings = apply(setting, ROOT / file)
    configs = tmp_path_factory.mktemp("changed") / "configs"
    shutil.copytree(ROOT / "configs", configs)
    (configs / "dreamer.yml").write_text(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "_model", cache(schema._model.__wrapped__))  # it remembers the keys
        patch.setattr(load, "CONFIGS", configs)
        for module in (schema, load):
            patch.setattr(module, "DEFAULTS", configs / "dreamer.yml")
        for module in (dreamer, dreamer_v2, dreamer_v3):
            own = diff.replace("imagination.feature[:, 1:]", "imagination.feature") if module is dreamer_v2 else diff
            use(apply(own, Path(module.__file__)), module, patch)
        yield


def apply(diff, path):
    """Return the text of a file with a diff applied. The old lines must occur exactly once."""
    old, new = ("".join(line[1:] for line in diff.splitlines(True) if line[0] in f" {sign}") for sign in "-+")
    text = path.read_text()
    assert text.count(old) == 1, path
    return text.replace(old, new)


def use(code, version, patch):
    """Replace the functions of a version's class by those of changed code of its file."""
    module = {"__name__": version.__name__}
    exec(code, module)
    (name,) = (name for name in ("Dreamer", "DreamerV2", "DreamerV3") if name in module)
    for function, body in vars(module[name]).items():
        if isinstance(body, FunctionType):
            patch.setattr(getattr(version, name), function, body)


def actor_gradient(version, discrete, cost):
    """Return the gradient of the actor's loss as one vector. Weights, data and noise do not depend on the cost."""
    algorithm = small_algorithms.make(version, f"change_cost={cost}", discrete=discrete, actions=3)
    batch = small_algorithms.windows(algorithm)
    _, posterior, _, _ = algorithm.model_loss(batch)
    loss, *_ = small_algorithms.behavior_losses(algorithm, batch, posterior.detach(), seed=1)
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(algorithm.actor.parameters()))])


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_example_in_change_one_idea_changes_the_actors_gradient(version, discrete, changed):
    """The cost must change the actor's gradient, not only the value of its loss."""
    free, again, costly = (actor_gradient(version, discrete, cost) for cost in (0, 0, 1))
    assert torch.equal(free, again)
    assert (costly - free).norm() > 0.01 * free.norm()


def test_every_paper_can_be_cited():
    """CITATION.cff lists the papers that the README names."""
    papers = set(re.findall(r"https://arxiv.org/abs/[\d.]+", (ROOT / "README.md").read_text()))
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    assert len(papers) == 4 and {reference["url"] for reference in references} == papers


def test_setuptools_reads_the_packaging_metadata_without_warnings():
    """A warning of deprecation counts, since it becomes an error later."""
    reader = pytest.importorskip("setuptools.config.pyprojecttoml")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        project = reader.read_configuration(ROOT / "pyproject.toml")["project"]
    assert project["license"] == "MIT" and [(ROOT / name).is_file() for name in project["license-files"]] == [True]
