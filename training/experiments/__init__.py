"""Grids of training runs that are compared fairly: plan, cells, matching, runner, report (docs/experiments.md)."""
