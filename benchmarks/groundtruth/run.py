"""All of ground truth v1, step by step; see README.md beside this file."""

import subprocess
import sys
from pathlib import Path

STEPS = ("small", "axes", "real", "scores", "check", "analysis")


def main() -> None:
    for step in STEPS:
        code = subprocess.run([sys.executable, str(Path(__file__).with_name(f"{step}.py"))], check=False).returncode
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
