"""Run code that nobody has read: in a process of its own, behind walls, within limits (docs/code_eval.md)."""

from proxybyte.eval.sandbox.capability import Capabilities, capabilities, choose_wall
from proxybyte.eval.sandbox.limits import LONGEST_RUN, Limits, Outcome, Status, Trial, Wall
from proxybyte.eval.sandbox.pool import run_programs
from proxybyte.eval.sandbox.runner import SandboxBroken, run_program

__all__ = [
    "LONGEST_RUN",
    "Capabilities",
    "Limits",
    "Outcome",
    "SandboxBroken",
    "Status",
    "Trial",
    "Wall",
    "capabilities",
    "choose_wall",
    "run_program",
    "run_programs",
]
