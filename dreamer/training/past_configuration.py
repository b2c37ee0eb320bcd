"""The configuration that a run's past was made with."""

from dreamer.config.load import MAY_CHANGE, flatten, renamed
from dreamer.errors import ConfigError
from dreamer.training import program


class PastConfiguration:
    """The configuration as a part of a checkpoint: of a run whose past depends on another one, it cannot be loaded."""

    def __init__(self, config, path):
        """path: of the file that the configuration was read from."""
        self.values, self.path = flatten(config), path

    def state_dict(self):
        return self.values

    def load_state_dict(self, state):
        """Raises ConfigError. Keys that an older version did not have are as good as unchanged."""
        state = renamed(state)
        for key in sorted(self.values.keys() & state.keys() - MAY_CHANGE):
            if self.values[key] != state[key]:
                raise ConfigError(
                    f"{key}: {self.values[key]} in {self.path}, but the checkpoint was made with {state[key]}; put it "
                    f"back, or start anew: {program.PROGRAM} --config {self.path}"
                )
