"""``python -m tests.fuzz``: the long run of the fuzzer."""

import argparse
import pkgutil
import sys
import time

from tests.fuzz.campaign import run

_CAMPAIGNS = {"videos": "tests.fuzz.seeds:VIDEOS", "models": "tests.fuzz.models.seeds:MODELS"}


def main() -> int:
    """Prints what came out; the exit code is 1 where something should not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=main.__doc__)
    parser.add_argument("--what", choices=_CAMPAIGNS, default="videos", help="what is damaged")
    parser.add_argument("--minutes", type=float, default=10, help="for how long")
    parser.add_argument("--cases", type=int, help="how many at most")
    parser.add_argument(
        "--first",
        type=int,
        default=int(time.time()) << 8,
        help="first case; `--first N --cases 1` repeats case N alone",
    )
    options = parser.parse_args()
    campaign = pkgutil.resolve_name(_CAMPAIGNS[options.what])
    report = run(campaign, options.first, cases=options.cases, seconds=options.minutes * 60)
    print(f"cases from {options.first}: {dict(report.outcomes)}")
    for seed, outcomes in report.by_seed.items():
        print(f"  {seed:20} {dict(outcomes)}")
    print(f"{report.success_share:.0%} {campaign.success}")
    print(f"slowest: {report.slowest[0]:.2f} s ({report.slowest[1]})")
    print(f"largest process: {report.peak_mib} MiB")
    for finding in report.findings:
        print(f"FOUND {finding}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
