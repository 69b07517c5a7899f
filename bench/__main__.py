"""``python -m bench``: measures Penstock beside its peers in one run; writes bench/results/, draws into
docs/performance/ and prints the table.
"""

import argparse
import json
import math
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench import machine, measures, peers, plots, report, rounds
from bench.processes import ROOT, StartFailed

# A quick run is under three minutes: what would begin later than this is left out.
_QUICK_S = 140.0
RESULTS = ROOT / "bench" / "results"


def main() -> int:
    """Exit 0 when it measured; with --gate, 1 when a target was missed and 2 when no verdict could be given."""
    args = _arguments()
    began = time.monotonic()
    # Ended from outside, it still has to end the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    contestants = [one for one in peers.ALL if not args.only or one.name in (*args.only, "direct")]
    told = machine.describe()
    if args.quick:
        rounds.say(measures.told_of_quick())
    plan = rounds.QUICK if args.quick else rounds.FULL
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as work:
        try:
            measured = rounds.measure(contestants, plan, Path(work))
            until = began + _QUICK_S if args.quick else math.inf
            further = measures.take(Path(work), quick=args.quick, names=args.measures, until=until)
        except StartFailed as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    left_out = {one.name: "left out of this run (--only)" for one in peers.ALL if one not in contestants}
    measured.absent.update(left_out)
    result = report.build(measured, plan, told, further)
    page = report.markdown(result)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "latest.md").write_text(page)
    print(page)
    for path in plots.draw(result, args.plots):
        print(f"bench: drew {path}", file=sys.stderr)
    rounds.say(f"took {time.monotonic() - began:.0f} s")
    return _status(result) if args.gate else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    quick = os.environ.get("QUICK", "") not in ("", "0")
    parser.add_argument("--quick", action="store_true", default=quick, help="3 short rounds (also QUICK=1)")
    parser.add_argument("--gate", action="store_true", help="exit 1 when a target is missed, 2 without a verdict")
    parser.add_argument("--plots", type=Path, default=plots.FOLDER, help="the folder of the drawings")
    names = [one.name for one in peers.ALL]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"only these: {', '.join(names)}")
    further = [one.name for one in measures.ALL]
    parser.add_argument(
        "--measures", nargs="*", choices=further, metavar="NAME", help=f"of the further ones only: {', '.join(further)}"
    )
    return parser.parse_args()


def _status(result: dict[str, object]) -> int:
    verdict = result["verdict"]
    if not isinstance(verdict, dict):
        return 2
    return 1 if "missed" in verdict.values() else 0


if __name__ == "__main__":
    sys.exit(main())
