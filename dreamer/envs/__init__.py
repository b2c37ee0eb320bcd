"""gym prints pages about its successor when it is imported, unless it finds none."""

import gym_notices.notices

gym_notices.notices.notices.clear()
