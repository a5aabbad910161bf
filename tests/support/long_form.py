"""The long form of the tests, by POINTSEG_STOPS=12: every stop, and what takes minutes."""

import os

STOPS = int(os.environ.get("POINTSEG_STOPS", "1"))  # of each command
LONG_FORM = STOPS >= 5
