"""How much of the stopping is done: one of each kind by default, all of it by POINTSEG_STOPS=12."""

import os

STOPS = int(os.environ.get("POINTSEG_STOPS", "1"))  # of each command
LONG_FORM = STOPS >= 5
