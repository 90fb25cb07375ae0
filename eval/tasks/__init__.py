"""Tasks for lm-eval that need no network: YAML beside JSONL, found with ``--include_path``."""

from pathlib import Path

TASKS_FOLDER = Path(__file__).parent
