"""Verdicts that are kept, so that no program runs twice under the same limits."""

import hashlib
import json
from pathlib import Path
from typing import Any

from proxybyte.errors import ProxyByteError
from proxybyte.eval.code.jsonl_log import JsonlLog
from proxybyte.eval.sandbox import Outcome, Status, Trial

_WAY_OF_TESTING = "tests apart"
"""Part of every key: verdicts that programs could give themselves, from before, do not count."""


class VerdictFile(JsonlLog):
    """Outcomes by program, in a JSONL file that is added to as they come.

    Args:
        path: the file; made if absent.
        conditions: what an outcome depends on besides the program; outcomes under others are passed over.

    Raises:
        ProxyByteError: if a line is no verdict, or another process writes the file.
    """

    def __init__(self, path: Path, conditions: Any) -> None:
        super().__init__(path)
        self._salt = json.dumps(conditions, sort_keys=True)
        self._held: dict[str, Outcome] = {}
        for number, line in enumerate(self.content.split(b"\n")[:-1], start=1):
            try:
                row = json.loads(line)
                self._held[row["program"]] = Outcome(Status(row["status"]), row["detail"], row["seconds"])
            except (ValueError, KeyError, TypeError) as error:
                self.close()
                raise ProxyByteError(f"{path}, line {number}: not a verdict ({error}): remove that file") from error

    def _key(self, program: Trial | str) -> str:
        parts = [program.code, program.tests] if isinstance(program, Trial) else [program]
        return hashlib.sha256(json.dumps([_WAY_OF_TESTING, self._salt, *parts]).encode("ascii")).hexdigest()[:32]

    def __contains__(self, program: Trial | str) -> bool:
        return self._key(program) in self._held

    def __getitem__(self, program: Trial | str) -> Outcome:
        return self._held[self._key(program)]

    def record(self, program: Trial | str, outcome: Outcome) -> None:
        """Keep an outcome."""
        key = self._key(program)
        self._held[key] = outcome
        row = {"program": key, "status": outcome.status, "detail": outcome.detail, "seconds": outcome.seconds}
        self.add([row])
