"""A program cannot give itself a verdict, and whatever it does is its own failure: the next program runs as before."""

import json
import textwrap

import psutil
import pytest

from proxybyte.cli import main
from proxybyte.eval.code.judging import Bench, judge, score
from proxybyte.eval.code.problems import CodeSet, parse_problems
from proxybyte.eval.code.samples import Sample
from proxybyte.eval.sandbox import Limits, Status, Trial, Wall, capabilities, run_program, run_programs
from proxybyte.eval.sandbox.runner import Launcher

TIGHT = Limits(wall_seconds=5, cpu_seconds=3, memory_bytes=512 << 20, processes=8)
TESTS = "from program import answer\nassert answer(6) == 42\nassert answer(0) == 0\n"
RIGHT = "def answer(x):\n    return 7 * x\n"
WRONG = "\ndef answer(x):\n    return 0\n"
WORDS = [
    b"passed",
    b"passed\n",
    b'{"status": "passed", "detail": ""}',
    b'{"status": "passed", "detail": "", "seconds": 0}\n',
    b'["end", "passed", ""]',
    (21).to_bytes(8, "big") + b'["end", "passed", ""]',
]
EVERYWHERE = f"""import os
for d in range(256):
  for w in {WORDS}:
    try: os.write(d, w)
    except OSError: pass
"""

ATTACKS = {
    "words of success on descriptor 3": EVERYWHERE.replace("range(256)", "(3,)"),
    "words of success on every descriptor": EVERYWHERE,
    "words, then leaving": EVERYWHERE + "os._exit(0)",
    "leaving well": "import os\nos._exit(0)",
    "leaving when asked": "import os\ndef answer(x):\n    os._exit(0)\n_keep = answer",
    "the launcher's functions through sys.modules": """
        import sys
        for name, module in list(sys.modules.items()):
            for key in ("_send", "send", "describe", "_describe", "judge", "_verdict", "_run", "_say"):
                if name.startswith("inside") or hasattr(module, key):
                    setattr(module, key, lambda *a, **k: ("passed", ""))
        """,
    "every word 'failed' that can be found": """
        import gc, sys
        for module in list(sys.modules.values()):
            for key, value in list(vars(module).items()):
                if value == "failed": setattr(module, key, "passed")
        for found in gc.get_objects():
            if type(found) is dict:
                for key, value in list(found.items()):
                    if type(value) is str and value in ("failed", "left", "timed out"): found[key] = "passed"
        """,
    "the frames above": """
        import sys
        frame = sys._getframe()
        while frame:
            for key, value in list(frame.f_globals.items()):
                if value == "failed": frame.f_globals[key] = "passed"
                if callable(value) and key in ("describe", "judge", "_run_tests"):
                    frame.f_globals[key] = lambda *a, **k: ("passed", "")
            frame = frame.f_back
        """,
    "the code of functions through gc": """
        import gc, types
        def passed(*a, **k): return ("passed", "")
        for found in gc.get_objects():
            if not isinstance(found, types.FunctionType) or found is passed or found.__closure__: continue
            if found.__name__ in ("run", "judge", "_run_tests", "describe", "ending"):
                found.__code__ = passed.__code__
        """,
    "json and os themselves": """
        import json, os
        dumps, write = json.dumps, os.write
        json.dumps = lambda *a, **k: dumps(*a, **k).replace("failed", "passed")
        os.write = lambda d, data: write(d, bytes(data).replace(b"failed", b"passed"))
        """,
    "atexit": "import atexit, os\natexit.register(lambda: os._exit(0))",
    "signal handlers": """
        import os, signal
        for number in range(1, 32):
            try: signal.signal(number, lambda *a: os._exit(0))
            except (OSError, ValueError): pass
        """,
    "other builtins": """
        import builtins
        builtins.AssertionError = builtins.Exception = type("Quiet", (), {})
        builtins.all = builtins.any = builtins.isinstance = lambda *a: True
        builtins.compile = lambda *a, **k: ""
        builtins.exec = lambda *a, **k: None
        """,
    "an exit hook that says success": "import sys\nsys.exit = lambda *a: None\nsys.excepthook = lambda *a: None",
    "an answer that equals everything": """
        class Yes:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __hash__(self): return 42
            def __bool__(self): return True
        def answer(x): return Yes()
        """,
    "a number that equals everything": """
        class Yes(int):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            __hash__ = int.__hash__
        def answer(x): return Yes(1)
        """,
    "a text and a list that equal everything": """
        class Text(str):
            def __eq__(self, other): return True
            __hash__ = str.__hash__
        class Many(list):
            def __eq__(self, other): return True
        def answer(x): return Many([Text("x")])
        """,
    "a class in place of the answer": """
        class answer:
            def __new__(cls, x): return object.__new__(cls)
            __eq__ = lambda self, other: True
        """,
    "leaving by an exception that tests may swallow": "def answer(x):\n    raise SystemExit(0)",
}
OWN_ANSWER = {"an answer that equals everything", "a number that equals everything", "leaving when asked"}
OWN_ANSWER |= {"a text and a list that equal everything", "a class in place of the answer"}
OWN_ANSWER |= {"leaving by an exception that tests may swallow"}


def attack(name: str) -> str:
    body = textwrap.dedent(ATTACKS[name])
    return body if name in OWN_ANSWER else body + WRONG


@pytest.fixture(params=list(Wall))
def any_wall(request) -> Wall:
    if request.param is Wall.NAMESPACES and capabilities().wall is not Wall.NAMESPACES:
        pytest.skip(capabilities().report())
    return request.param


@pytest.fixture(scope="module")
def launcher():
    with Launcher() as launcher:
        yield launcher


@pytest.mark.parametrize("name", ATTACKS)
def test_no_program_passes_tests_by_anything_but_its_answers(any_wall, launcher, name):
    outcome = launcher.run(Trial(attack(name), TESTS), TIGHT, any_wall)
    assert outcome.status is Status.FAILED, outcome
    swallowing = "from program import answer\ntry:\n    assert answer(6) == 42\nexcept AssertionError:\n    raise\n"
    swallowing += "except BaseException:\n    pass\n"
    if "leaving" in name:
        assert launcher.run(Trial(attack(name), swallowing), TIGHT, any_wall).status is Status.FAILED


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in OWN_ANSWER])
def test_nor_does_one_text_that_ends_in_a_failed_assertion(any_wall, launcher, name):
    body = textwrap.dedent(ATTACKS[name])
    quiet = "other builtins" in name  # it has no AssertionError left to raise
    text = body + ("\n1 / 0\n" if quiet else "\nassert False\n")
    assert not launcher.run(text, TIGHT, any_wall).passed


def test_right_answers_pass_whatever_they_are_made_of(any_wall, launcher):
    code = """
        import collections, dataclasses, datetime, decimal, enum, fractions, typing
        import numpy as np
        class Pair(typing.NamedTuple):
            a: int
            b: float
        class Colour(enum.IntEnum):
            RED = 3
        @dataclasses.dataclass
        class Node:
            value: int
            rest: "Node | None" = None
        def values():
            return [None, True, 1 << 200, -(10 ** 5000), 1.5, float("inf"), 2 - 3j, "größer\\ud800", b"\\0\\xff",
                    (1, [2, {3}]), {"a": {(1, 2): frozenset({4})}}, range(3, 9, 2), Pair(1, 2.0), Colour.RED,
                    bytearray(b"x"), ...]
        def numbers(n):
            for i in range(n): yield i
        def sort(items, by=None): items.sort(key=by)
        def total(node): return node.value + (total(node.rest) if node.rest else 0)
        def arrays(): return np.arange(6.0).reshape(2, 3), np.float32(0.5), np.array(["a", "b"]), np.bool_(True)
        def counted(text): return collections.Counter(text), collections.OrderedDict(a=1), collections.deque([1], 3)
        def exact(): return fractions.Fraction(1, 3), decimal.Decimal("0.10"), datetime.date(2026, 1, 2)
        def fails(): raise ValueError("no such thing")
        """
    tests = """
        import math
        import numpy as np
        from program import Node, arrays, counted, exact, fails, numbers, sort, total, values
        assert values() == [None, True, 1 << 200, -(10 ** 5000), 1.5, math.inf, 2 - 3j, "größer\\ud800", b"\\0\\xff",
            (1, [2, {3}]), {"a": {(1, 2): frozenset({4})}}, range(3, 9, 2), (1, 2.0), 3, bytearray(b"x"), ...]
        assert [type(value) for value in values()[1:4]] == [bool, int, int]
        assert list(numbers(4)) == [0, 1, 2, 3] and next(numbers(1)) == 0 and sum(numbers(5)) == 10
        items = [3, -5, 1]
        sort(items)
        assert items == [-5, 1, 3]
        sort(items, by=abs)
        assert items == [1, 3, -5]
        first, second = Node(1), Node(2)
        first.rest = second
        assert total(first) == 3 and first.rest.value == 2 and first.rest is second and isinstance(first, Node)
        matrix, half, names, yes = arrays()
        assert np.array_equal(matrix, np.arange(6.0).reshape(2, 3)) and half == 0.5
        assert list(names) == ["a", "b"] and yes
        letters, ordered, queue = counted("abca")
        assert letters == {"a": 2, "b": 1, "c": 1} and letters["z"] == 0 and ordered == {"a": 1} and queue.maxlen == 3
        assert [str(value) for value in exact()] == ["1/3", "0.10", "2026-01-02"]
        try: fails()
        except ValueError as error: assert str(error) == "no such thing"
        else: raise AssertionError("it did not fail")
        """
    outcome = launcher.run(Trial(textwrap.dedent(code), textwrap.dedent(tests)), TIGHT, any_wall)
    assert outcome.passed, outcome


def test_the_tests_are_nowhere_in_the_programs_process(launcher):
    """Neither as objects, nor in memory, nor through the other process's files."""
    code = """
        import gc, os
        found = []
        def search():
            for thing in gc.get_objects():
                for value in (thing.values() if type(thing) is dict else thing if type(thing) is list else ()):
                    if type(value) is bytes: value = value.decode("latin-1")
                    if type(value) is str and "se" + "same" in value: found.append("object")
            mine = os.getpid()
            for name in filter(str.isdecimal, os.listdir("/proc")):
                if int(name) == mine: continue
                for file in ("mem", "environ", "maps", "fd/3", "fd/4", "fd/5", "fd/6"):
                    try: open(f"/proc/{name}/{file}", "rb").close(); found.append(f"{name}/{file}")
                    except OSError: pass
                    try: os.close(os.open(f"/proc/{name}/{file}", os.O_WRONLY)); found.append(f"{name}/{file} to write")
                    except OSError: pass
        def answer(): search(); return found
        """
    tests = "from program import answer\nword = 'sesame'\nassert answer() == [], answer()\n"
    outcome = launcher.run(Trial(textwrap.dedent(code), tests), TIGHT, capabilities().wall)
    assert outcome.passed, outcome


def message(text: bytes) -> bytes:
    return len(text).to_bytes(8, "big") + text


END = message(b'["end", "passed", ""]')


@pytest.mark.parametrize(
    "asked",
    ["abs(answer(6) - 42) < 1e-6", "abs(42 - answer(6)) < 1e-6", "answer(6) > 41", "41 < answer(6)", "42 in answer(6)"],
)
def test_no_answer_is_told_what_it_is_compared_with(launcher, asked):
    """The program's object would say 0 to any difference, and yes to any order."""
    code = """
        class Yes:
            __sub__ = __rsub__ = lambda self, other: 0.0
            __lt__ = __gt__ = __le__ = __ge__ = __contains__ = lambda self, other: True
            def __iter__(self): return iter([1])
        def answer(x): return Yes()
        """
    outcome = launcher.run(
        Trial(textwrap.dedent(code), f"from program import answer\nassert {asked}"), TIGHT, capabilities().wall
    )
    assert outcome.status is Status.FAILED, outcome
    honest = f"def answer(x): return {'[42]' if ' in ' in asked else '42'}"
    honest = Trial(honest, f"from program import answer\nassert {asked}")
    assert launcher.run(honest, TIGHT, capabilities().wall).passed


NOISE = {
    "an unknown word": [b'{"status": "fine", "detail": ""}'],
    "an unknown word as a message": [message(b'["end", "fine", ""]')],
    "a huge integer": [message(b'["end", ' + b"9" * 6000 + b', ""]')],
    "a huge size": [b"\xff" * 8],
    "deeply nested JSON": [message(b"[" * 100_000)],
    "deeply nested values": [END, message(b'["ok", ' + b'["l", ' * 900 + b"1" + b"]" * 900 + b", []]")],
    "an object": [message(b"{}")],
    "the word broken": [message(b'{"status": "broken", "detail": ""}'), message(b'["end", "broken", ""]')],
    "bytes that are no text": [message(b"\xff\xfe\x00")],
    "half a message": [(100).to_bytes(8, "big") + b"["],
    "unhashable members": [END, message(b'["ok", ["s", ["l"]], []]')],
    "an unknown reference": [END, message(b'["ok", ["h", {}, 1], []]')],
    "a callback that nobody gave": [END, message(b'["callback", 7, ["t"], ["d"]]')],
    "an exception of no name": [END, message(b'["raise", "\\u0000\\ud800", ["\\ud800", 3], "", "\\ud83d"]')],
    "an argument of another type": [END, message(b'["ok", null, [[0, 3], ["x", 1]]]')],
    "an argument that is none": [END, message(b'["ok", null, []]'), message(b'["ok", null, [[99, 3]]]')],
    "an array of objects": [END, message(b'["ok", ["n", "|O8", [1], "0000000000000000"], []]')],
}
NOISE_CODE = """
import os
for number in range(3, 16):
    for data in {noise}:
        try: os.write(number, data)
        except OSError: pass
{then}
"""


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("then", ["", "os._exit(0)"])
def test_noise_on_the_channel_is_a_failure_and_the_run_goes_on(launcher, name, then):
    code = NOISE_CODE.format(noise=NOISE[name], then=then)
    limits = Limits(wall_seconds=1, cpu_seconds=1, memory_bytes=512 << 20)
    outcome = launcher.run(Trial(code + WRONG, TESTS), limits, capabilities().wall)
    assert outcome.status in (Status.FAILED, Status.TIMED_OUT), outcome
    assert outcome.detail
    assert launcher.run(Trial(RIGHT, TESTS), TIGHT, capabilities().wall).passed


def test_closing_every_descriptor_is_a_failure(any_wall, launcher):
    code = "import os\nos.closerange(0, 256)\n"
    assert launcher.run(Trial(code + WRONG, TESTS), TIGHT, any_wall).status is Status.FAILED


@pytest.mark.parametrize("number", [2, 9, 11, 14, 15, 34, 40, 64])
def test_a_program_that_dies_by_a_signal_has_failed(launcher, number):
    """Real-time signals have no name in Python."""
    for code in (
        f"import os\nos.kill(os.getpid(), {number})\n",
        f"def answer(x):\n    import os; os.kill(os.getpid(), {number})",
    ):
        outcome = launcher.run(Trial(code + WRONG * ("def" not in code), TESTS), TIGHT, capabilities().wall)
        assert outcome.status is Status.FAILED, outcome
        assert "signal" in outcome.detail or number == 2, outcome


def test_a_program_that_kills_all_it_can_reach_has_failed(any_wall, launcher):
    if any_wall is Wall.LIMITS:
        pytest.skip("it would reach this test run")
    code = "import os\ntry: os.kill(-1, 9)\nexcept PermissionError: pass\n"
    assert launcher.run(Trial(code + WRONG, TESTS), TIGHT, any_wall).status is Status.FAILED
    assert launcher.run(Trial(RIGHT, TESTS), TIGHT, any_wall).passed


def test_behind_limits_alone_a_killed_launcher_is_the_programs_failure_too(launcher):
    code = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(9)\n"
    above = "import os, signal, pathlib\nme = os.getppid()\n"
    above += "up = int(pathlib.Path(f'/proc/{me}/stat').read_text().rsplit(')', 1)[1].split()[1])\n"
    for text in (code, above + "os.kill(up, signal.SIGKILL)\nimport time\ntime.sleep(9)\n"):
        assert launcher.run(text, TIGHT, Wall.LIMITS).status is Status.FAILED
        assert launcher.run(Trial(RIGHT, TESTS), TIGHT, Wall.LIMITS).passed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'\\U0001f642' * 2000", "ValueError: \U0001f642\U0001f642"),
        ("'\\ud83d' * 2000", "ValueError: \\ud83d"),
        ("'x' * 100_000", "ValueError: xxx"),
        ("'a\\0b\\u2028c'", "ValueError: "),
    ],
)
def test_the_reason_is_kept_whatever_the_exception_says(launcher, text, shown):
    for trial in (f"raise ValueError({text})", Trial(f"def answer(x):\n    raise ValueError({text})", TESTS)):
        outcome = launcher.run(trial, TIGHT, capabilities().wall)
        assert outcome.status is Status.FAILED
        assert shown in outcome.detail or shown == "ValueError: "
        assert len(outcome.detail) < 5000
        outcome.detail.encode("utf-8")
        assert json.loads(json.dumps(outcome.detail)) == outcome.detail


def test_of_a_run_over_many_hostile_programs_every_honest_verdict_is_there():
    hostile = [Trial(attack(name), TESTS) for name in ATTACKS]
    mixed = [trial for bad in hostile for trial in (bad, Trial(RIGHT + f"# {id(bad)}", TESTS))]
    outcomes = run_programs(mixed, TIGHT, capabilities().wall, workers=2)
    assert [outcome.passed for outcome in outcomes] == [False, True] * len(hostile)


def processes_named(name: str) -> list[psutil.Process]:
    found = [p for p in psutil.process_iter(["name", "status"]) if p.info["name"] == name]
    return [p for p in found if p.info["status"] != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.1, 0.3])
def test_a_time_out_leaves_no_process_however_short(any_wall, launcher, seconds):
    """Also where it falls into the very start of a program."""
    name = f"late{int(seconds * 1000)}{any_wall[:4]}"
    code = f"import ctypes, time\nctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0)\ntime.sleep(60)"
    limits = Limits(wall_seconds=seconds, cpu_seconds=1)
    for _ in range(3):
        assert launcher.run(code, limits, any_wall).status is Status.TIMED_OUT
    assert not processes_named(name)
    below = psutil.Process(launcher._process.pid).children(recursive=True)
    _, alive = psutil.wait_procs(below, timeout=10)  # who watched the last one ends just after its word
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": "import math\n\ndef helper(x):\n    return math.floor(x)\n\ndef sum(xs):\n",
    "entry_point": "sum",
    "canonical_solution": "    return helper(len(xs))\n",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 2\n    assert math.isclose(helper(2.5), 2)\n"
    "    assert all(candidate([0] * n) == n for n in range(4))\n",
}


def test_problems_ask_of_the_program_what_the_published_solution_defines():
    """Its functions, one with a builtin's name, come from the program; its modules do not."""
    (problem,) = parse_problems([HUMANEVAL], CodeSet.HUMANEVAL, "rows")
    lines = problem.separate_tests.splitlines()
    assert set(lines[: lines.index("def check(candidate):")]) == {
        "import math",
        "from program import sum",
        "from program import helper",
    }
    cheat = (
        "    return 0\n\nclass math:\n    isclose = staticmethod(lambda *a: True)\nall = lambda xs: True\n"
        "def check(candidate): pass\n"
    )
    samples = [problem.canonical, "    return 0\n", cheat, "    return len(xs)\ndef helper(x): return 2\n"]
    samples = [Sample(problem.task_id, number, text) for number, text in enumerate(samples)]
    outcomes = judge([problem], samples, Bench(TIGHT, capabilities().wall))
    assert [outcome.passed for outcome in outcomes] == [True, False, False, True]
    assert score([problem], samples, outcomes).correct.tolist() == [2]


def test_the_command_scores_no_hostile_sample(tmp_path, capsys):
    (tmp_path / "problems.jsonl").write_text(json.dumps(HUMANEVAL) + "\n")
    rows = [
        {"task_id": "HumanEval/0", "completion": f"    return 0\n{textwrap.dedent(body)}"} for body in ATTACKS.values()
    ]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = [
        "eval",
        "code",
        "--data",
        str(tmp_path / "problems.jsonl"),
        "--samples",
        str(tmp_path / "samples.jsonl"),
    ]
    assert main([*arguments, "--confirm-run-unsafe-code", "--json", "--timeout", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == len(ATTACKS)
    assert found["solved"] == 0


def test_run_program_takes_tests_too():
    assert run_program(Trial(RIGHT, TESTS), TIGHT, capabilities().wall).passed
    assert not run_program(Trial(RIGHT, TESTS + "assert answer(1) == 8"), TIGHT, capabilities().wall).passed
    missing = run_program(Trial("x = 1", TESTS), TIGHT, capabilities().wall)
    assert "cannot import name 'answer'" in missing.detail
