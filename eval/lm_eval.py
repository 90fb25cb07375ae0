"""``python -m proxybyte.eval.lm_eval``: lm-eval with our model class and tasks, and its own arguments.

lm-eval has no plugins: a class is known once its module is imported, which is what this entry is for.
"""

import sys
from collections.abc import Sequence

from proxybyte.errors import ProxyByteError
from proxybyte.eval.tasks import TASKS_FOLDER

_SUB_COMMANDS = ("run", "ls", "validate")


def main(arguments: Sequence[str]) -> int:
    """Run lm-eval on ``arguments``; ``--model`` is ours and ``--include_path`` our tasks unless given.

    Raises:
        ProxyByteError: if lm-eval is not installed, a task is unknown, or the model does not load.
    """
    try:
        from lm_eval.__main__ import cli_evaluate

        import proxybyte.eval.lm_eval_model  # noqa: F401  (importing it makes lm-eval know the class)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "lm_eval":
            raise
        raise ProxyByteError("lm-eval is not installed: pip install 'proxybyte[eval]'") from error
    before = sys.argv
    sys.argv = ["lm-eval", *with_defaults(arguments)]
    try:
        cli_evaluate()
    except ValueError as error:
        if isinstance(error, ProxyByteError) or not str(error).startswith("Tasks not found"):
            raise
        raise ProxyByteError(f"{error}; 'proxybyte eval lm ls tasks' lists them") from error
    finally:
        sys.argv = before
    return 0


def with_defaults(arguments: Sequence[str]) -> list[str]:
    """``arguments`` for lm-eval, with the sub-command and what the caller left out."""
    if not arguments:
        return ["--help"]
    command, rest = (arguments[0], arguments[1:]) if arguments[0] in _SUB_COMMANDS else ("run", arguments)
    given = {argument.split("=")[0] for argument in rest}
    added: list[str] = []
    if not given & {"--config", "-C"}:
        if not given & {"--include_path"}:
            added += ["--include_path", str(TASKS_FOLDER)]
        if command == "run" and not given & {"--model", "-M"}:
            added += ["--model", "proxybyte"]
    return [command, *rest, *added]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ProxyByteError as error:
        print(f"proxybyte: {error}", file=sys.stderr)
        sys.exit(2)
