"""Save the configuration in a checkpoint, and compare it when a run resumes."""

from pathlib import Path

from dreamer.config.load import MAY_CHANGE, Config, flatten, replace_old_names
from dreamer.errors import ConfigError
from dreamer.training import program


class SavedConfiguration:
    """Saves the configuration as a part of a checkpoint. Refuses a checkpoint that was made with a different one."""

    def __init__(self, config: Config, path: Path):
        """path: the file that the configuration was read from."""
        self.values, self.path = flatten(config), path

    def state_dict(self) -> dict[str, object]:
        """Return the configuration, {dotted key: value}."""
        return self.values

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Raise ConfigError if a key that may not change has another value. Ignore keys that only one configuration
        has: another version of this program added or removed them."""
        state = replace_old_names(state)
        for key in sorted(self.values.keys() & state.keys() - MAY_CHANGE):
            if self.values[key] != state[key]:
                raise ConfigError(
                    f"{key}: {self.values[key]} in {self.path}, but the checkpoint was made with {state[key]}; put it "
                    f"back, or start anew: {program.PROGRAM} --config {self.path}"
                )
