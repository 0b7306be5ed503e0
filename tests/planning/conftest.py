"""A TPU's compiler lies beside the environment, where launch/test.sh puts it, for these tests."""

import sys
from pathlib import Path

BESIDE = Path(sys.prefix) / "planning"

if BESIDE.is_dir():
    sys.path.append(str(BESIDE))
