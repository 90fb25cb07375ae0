"""``python tests/soak``: what the tests try for seconds, for as long as is asked (``make soak``).

    python tests/soak kills --kills 500          commands killed at random moments
    python tests/soak kills --only train --seed 7    one trial again, as a failure names it
    python tests/soak fuzz --seconds 600         damaged input of every kind
    python tests/soak train --seconds 3600       one run; memory and descriptors
    python tests/soak generate --calls 10000     calls of generate; memory and descriptors

Counts go into a JSON file as they are made, so that what is cut off loses none of them. Exit code 1: a promise was not
kept, and the file says which, with the seed that does it again.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from command_client import CommandServer
from kill_trials import SUBJECTS, Trials, Wrong
from soak_inputs import make_inputs

from proxybyte.folders import write_json


def kills(args: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> bool:
    """Kill until there were ``args.kills``; whether every promise was kept."""
    subjects = [each for each in SUBJECTS if args.only in (None, str(each))]
    first = args.seed if args.seed is not None else random.SystemRandom().randrange(10**9)
    print(f"seed {first}: the same kills again with --seed {first}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "inputs").mkdir()
        (home / "server").mkdir()
        inputs = make_inputs(home / "inputs")
        server = CommandServer(home / "server")
        trials = Trials(inputs, server, home / "trials")
        for number in range(10**9):
            if trials.counts.kills >= args.kills or time.monotonic() - began > args.seconds:
                break
            try:
                trials.run(subjects[number % len(subjects)], first + number // len(subjects))
            except Wrong as error:
                print(f"WRONG: {error}", flush=True)
            keep({"seed": first, "seconds": round(time.monotonic() - began), **asdict(trials.counts)})
            if number % 50 == 49:
                print(f"{trials.counts.kills} kills in {time.monotonic() - began:.0f} s", flush=True)
        server.close()
    return not trials.counts.wrong


WORK: dict[str, Callable[[argparse.Namespace, Callable[[dict[str, Any]], None]], bool]] = {"kills": kills}


def main(argv: Sequence[str] | None = None) -> int:
    """Try what is asked for; 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=list(WORK))
    parser.add_argument("--kills", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no longer than so (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=10_000, help="of generate (default: %(default)s)")
    parser.add_argument("--only", choices=list(map(str, SUBJECTS)), help="kill this command alone")
    parser.add_argument("--seed", type=int, help="of the first trial (default: drawn, and printed)")
    parser.add_argument("--out", type=Path, default=Path("build/soak.json"), help="JSON file (default: %(default)s)")
    args = parser.parse_args(argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)

    def keep(row: dict[str, Any]) -> None:
        rows = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
        write_json(args.out, rows | {args.what: row})

    kept = WORK[args.what](args, keep)
    print(f"written to {args.out}" + ("" if kept else ": a promise was not kept"), flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
