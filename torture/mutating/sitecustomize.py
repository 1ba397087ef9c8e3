"""Python imports this first in every process that has this folder in its PYTHONPATH, which only the torture sets."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from torture.mutants import MUTANTS

MUTANTS[os.environ["TORTURE_MUTANT"]]()
