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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fuzzing
import long_runs
from command_client import CommandServer
from kill_trials import SUBJECTS, Trials, Wrong
from soak_inputs import Inputs, make_inputs

from proxybyte.folders import write_json

Keep = Callable[[dict[str, Any]], None]


@contextmanager
def made() -> Iterator[tuple[Inputs, Path]]:
    """Inputs, and a folder beside them, for as long as the block takes."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        home = Path(name)
        (home / "inputs").mkdir()
        yield make_inputs(home / "inputs"), home


@contextmanager
def served(home: Path) -> Iterator[CommandServer]:
    """What starts commands."""
    (home / "server").mkdir()
    server = CommandServer(home / "server")
    yield server
    server.close()


def kills(args: argparse.Namespace, keep: Keep) -> bool:
    """Kill until there were ``args.kills``; whether every promise was kept."""
    subjects = [each for each in SUBJECTS if args.only in (None, str(each))]
    began = time.monotonic()
    with made() as (inputs, home), served(home) as server:
        trials = Trials(inputs, server, home / "trials")
        number = 0
        while trials.counts.kills < args.kills and time.monotonic() - began < args.seconds:
            try:
                trials.run(subjects[number % len(subjects)], args.seed + number // len(subjects))
            except Wrong as error:
                print(f"WRONG: {error}", flush=True)
            number += 1
            keep({"seed": args.seed, "seconds": round(time.monotonic() - began), **asdict(trials.counts)})
            if number % 50 == 0:
                print(f"{trials.counts.kills} kills in {time.monotonic() - began:.0f} s", flush=True)
    return not trials.counts.wrong


def fuzz(args: argparse.Namespace, keep: Keep) -> bool:
    """Damage input for ``args.seconds``; whether every reader said what it must."""
    end, counts = time.monotonic() + args.seconds, Counter[str]()
    faults: list[str] = []
    by: dict[str, Counter[str]] = {}
    with made() as (inputs, home):
        for number, (surface, end_of_it) in enumerate(
            fuzzing.fuzz(inputs, home, args.seed, lambda: time.monotonic() < end), 1
        ):
            told = end_of_it if end_of_it in (fuzzing.ACCEPTED, fuzzing.REFUSED) else "faults"
            if told == "faults":
                faults.append(end_of_it)
                print(f"WRONG: {end_of_it}", flush=True)
            counts[told] += 1
            by.setdefault(surface, Counter())[told] += 1
            if number % 20 == 0 or told == "faults":
                keep({"seed": args.seed, "inputs": number, **counts, "by": by, "wrong": faults})
    return not faults


def train(args: argparse.Namespace, keep: Keep) -> bool:
    """Train for ``args.seconds``; whether memory and descriptors stayed."""
    with made() as (inputs, home), served(home) as server:
        return _last(long_runs.training(inputs, server, home / "run", args.seconds), keep)


def generate(args: argparse.Namespace, keep: Keep) -> bool:
    """Call ``generate`` so often; whether memory and descriptors stayed."""
    return _last(long_runs.generation(args.model, args.calls, args.seconds), keep)


def _last(rows: Iterator[dict[str, Any]], keep: Keep) -> bool:
    kept = False
    for row in rows:
        keep(row)
        kept = bool(row["kept"])
    return kept


WORK: dict[str, Callable[[argparse.Namespace, Keep], bool]] = {
    "kills": kills,
    "fuzz": fuzz,
    "train": train,
    "generate": generate,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Try what is asked for; 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=list(WORK))
    parser.add_argument("--kills", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="how long, or at most (default: 3600 for fuzz and train)")
    parser.add_argument("--calls", type=int, default=10_000, help="of generate (default: %(default)s)")
    parser.add_argument("--only", choices=list(map(str, SUBJECTS)), help="kill this command alone")
    parser.add_argument("--seed", type=int, help="of the first trial (default: drawn, and printed)")
    parser.add_argument("--model", default="box", help="that generates (default: the one that comes along)")
    parser.add_argument("--out", type=Path, default=Path("build/soak.json"), help="JSON file (default: %(default)s)")
    args = parser.parse_args(argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.seconds is None:
        args.seconds = 3600.0 if args.what in ("fuzz", "train") else float("inf")
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(10**9)
    print(f"seed {args.seed}: the same again with --seed {args.seed}", flush=True)

    def keep(row: dict[str, Any]) -> None:
        rows = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
        write_json(args.out, rows | {args.what: row})

    kept = WORK[args.what](args, keep)
    print(f"written to {args.out}" + ("" if kept else ": a promise was not kept"), flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
