"""``python -m tests.fuzz``: the long run of the fuzzer."""

import argparse
import sys
import time

from tests.fuzz.campaign import run


def main() -> int:
    """Prints what came out; the exit code is 1 where something should not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for how long")
    parser.add_argument("--first", type=int, default=int(time.time()) << 8, help="first case")
    options = parser.parse_args()
    report = run(options.first, seconds=options.minutes * 60)
    print(f"cases from {options.first}: {dict(report.outcomes)}")
    for seed, outcomes in report.by_seed.items():
        print(f"  {seed:20} {dict(outcomes)}")
    print(f"{report.decoded_share:.0%} gave frames")
    print(f"slowest: {report.slowest[0]:.2f} s ({report.slowest[1]})")
    print(f"largest process: {report.peak_mib} MiB")
    for finding in report.findings:
        print(f"FOUND {finding}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
