"""`python -m pointseg`, the same as `pointseg`."""

import sys

from pointseg.cli import main

sys.exit(main())
