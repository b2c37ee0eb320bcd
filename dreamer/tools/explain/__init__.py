"""Say why a run learns or does not: `dreamer explain <run>`.

`opened_run.py` opens the run. `curves.py`, `steps.py`, `model.py` and `behavior.py` compute figures from its curves,
from the stored steps, and from the newest checkpoint on these steps. `verdicts/` checks the figures. Nothing in the
run's folder is changed or locked.
"""
