"""Ground truth v1: transfers that were really run, see README.md.

Its steps are run by path and import each other by bare names. Whoever imports them as `groundtruth.…` needs this folder
on the path too, and first, for `scores` is also the name of a command beside it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
