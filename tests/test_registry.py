"""Files, rewards and extractors told once, and read from there by all who name them."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from lab.experiment.world import WorldFiles
from ttsvar_core import registry
from ttsvar_core.commands import choices

ENTRIES = [*registry.REWARDS.values(), *registry.EXTRACTORS.values()]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.key)
def test_a_loader_takes_a_path_for_each_file_and_the_options(entry):
    module, name = entry.loader.split(":")
    loader = getattr(importlib.import_module(f"ttsvar_core.{module}"), name)
    options = {**entry.options, **({"dtype": None} if entry.files else {}), **({entry.number: 2} if entry.number else {})}
    inspect.signature(loader).bind(*(file.names[0] for file in entry.files), **options)


def test_keys_and_titles_tell_entries_apart():
    for entries in (registry.REWARDS, registry.EXTRACTORS):
        assert all(key == entry.key for key, entry in entries.items())
        assert len({key.lower() for key in entries}) == len({entry.title for entry in entries.values()}) == len(entries)


def test_a_reward_is_one_entry_for_everybody(monkeypatch):
    """The stand-in for a new file is a reward that needs none."""
    monkeypatch.setitem(registry.REWARDS, "new", registry.Entry("new", "New one", "rewards.scenes:SceneReward"))
    assert registry.usages(registry.REWARDS).endswith(", new")
    assert choices.load_reward(["new"], "softmax", "cpu").name == "scenes"
    assert list(WorldFiles(rewards=("new",), extractors=("chance",))().rewards) == ["new"]


@pytest.mark.parametrize("spec", ["hps", "hps=", "hps=a,b", "aesthetic=a", "scenes=a", "taste", ""])
def test_what_names_no_reward_is_refused_with_those_there_are(spec):
    with pytest.raises(ValueError, match=r"write one of scenes, image-reward=ImageReward\.pt"):
        registry.load(registry.REWARDS, spec, "cpu")


def test_the_grid_of_the_latent_pool_is_a_number():
    assert registry.load(registry.EXTRACTORS, "Latent-Pool=3", "cpu").grid == 3
    assert registry.load(registry.EXTRACTORS, "latent-pool", "cpu").grid == 4
    for wrong in ("latent-pool=0", "latent-pool=²"):
        with pytest.raises(ValueError, match=f"cannot load '{wrong}'; write one of"):
            registry.load(registry.EXTRACTORS, wrong, "cpu")


def test_a_title_that_is_none_is_told_with_those_there_are():
    assert registry.titled(registry.REWARDS, "HPS v2.1").key == "hps"
    with pytest.raises(ValueError, match="There is no 'taste'; choose one of scene verifier"):
        registry.titled(registry.REWARDS, "taste")


def test_the_command_line_names_everything_without_torch():
    code = "import sys; from ttsvar_core import cli; sys.argv[1:] = ['generate', '--help']; cli.main()"
    code = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    words = "".join(done.stdout.split())
    assert done.stdout.endswith("False\n") and all(entry.usage in words for entry in ENTRIES), done.stderr
