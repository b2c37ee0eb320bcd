"""Say why a run learns or does not: `dreamer explain <run>`.

`subject.py` opens the run. `curves.py`, `steps.py`, `model.py` and `behavior.py` compute figures from its curves, from
the stored steps, and from the newest checkpoint on these steps. `verdicts/` judges the figures. Nothing in the run's
folder is changed or locked.
"""
