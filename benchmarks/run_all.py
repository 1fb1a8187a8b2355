"""Runs every benchmark, one after the other, and writes ``docs/benchmarks.md``.

Knows: which there are, and how long each may take. Must not know: what they measure. One that
fails or overruns is said and does not stop the others; its older result stays as it is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from benchmarks import harness

# {script: seconds that its full form may take}; in all an hour.
LIMITS = {
    "agents": 1_500,
    "foundation": 900,
    "memory": 600,
    "distributed_overhead": 1_200,
    "suggestion": 1_200,
    "utilisation": 1_200,
}
SUITE = 3_600


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Full: within an hour. Short: about 5 minutes, keeps nothing, judges nothing.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help="the short form of each")
    parser.add_argument("--only", nargs="*", choices=list(LIMITS), default=list(LIMITS))
    arguments = parser.parse_args()
    deadline = time.monotonic() + SUITE
    # Both ways of importing a neighbour work: as benchmarks.harness and as harness.
    paths = [str(harness.HERE.parent), str(harness.HERE)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    failed: list[str] = []
    for name in arguments.only:
        limit = min(LIMITS[name], deadline - time.monotonic())
        if limit < 1:
            harness.say(f"cut: {name} was not run, the hour is over")
            failed.append(name)
            continue
        harness.say(f"=== {name}, at most {limit:.0f} s")
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        command += ["--short"] if arguments.short else []
        try:
            subprocess.run(
                command, check=True, timeout=limit, cwd=harness.HERE.parent, env=environment
            )
        except subprocess.TimeoutExpired:
            harness.say(f"cut: {name} took more than {limit:.0f} s and was ended")
            failed.append(name)
        except subprocess.CalledProcessError as error:
            harness.say(f"cut: {name} failed with exit code {error.returncode}")
            failed.append(name)
    if not arguments.short:
        subprocess.run(
            [sys.executable, "-m", "benchmarks.tables"], check=True, cwd=harness.HERE.parent
        )
    if failed:
        harness.say(f"without a new result: {', '.join(failed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
