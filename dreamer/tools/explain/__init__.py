"""Say why a run learns or does not: `dreamer explain <run>`.

`subject.py` opens the run, `curves.py`, `steps.py`, `model.py` and `behavior.py` take figures from its curves, from the
stored steps, and from the newest checkpoint on these steps. `verdicts/` judges them. Nothing in the run's folder is
changed or locked.
"""
