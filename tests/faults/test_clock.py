"""A clock that jumps by days, both ways, all the while: nothing that is made depends on it, and nobody is given up."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from soak_inputs import COMMANDS

from proxybyte.checksums import read_record
from proxybyte.cli import main

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
static long long jump(void) {
    static unsigned calls;
    return (calls++ % 7 - 3) * 86400LL;
}
int clock_gettime(clockid_t clock, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, t);
    if (clock == CLOCK_REALTIME) t->tv_sec += jump();
    return result;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.mark.parametrize("name", [*COMMANDS, "train"])
def test_what_is_made_under_a_jumping_clock_is_the_same(name, inputs, server, tmp_path):
    """The clock of Python jumps; what C code reads is in the next test."""
    out, whole = tmp_path / "out", tmp_path / "other" / "out"
    code, said = server.run(inputs.words(name, out), clock_jumps=True)
    assert code == 0, said
    assert main(inputs.words(name, whole)) == 0
    part = "model" if name == "train" else "."
    assert read_record(out / part).sums == read_record(whole / part).sums


@pytest.mark.parametrize("name", ["train", "prepare"])
def test_two_processes_wait_for_each_other_whatever_the_clock_says(name, inputs, server, tmp_path):
    words = inputs.words(name, tmp_path / "out")
    how = {"ranks": 2, "clock_jumps": True, "environment": {"ACCELERATE_USE_CPU": "true"}}
    if name == "train":
        words, how["module"] = [*words[1:], "batch.rows_per_device=1"], "proxybyte.training.train"
    else:
        words = [word for word in words if word not in ("--workers", "1")]
    code, said = server.run(words, **how)
    assert code == 0, said
    assert "no sign of life" not in said


@pytest.mark.slow
def test_the_clock_that_every_library_reads_may_jump(inputs, tmp_path):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no compiler for the clock")
    shim, source = tmp_path / "clock.so", tmp_path / "clock.c"
    source.write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(shim), str(source), "-ldl"], check=True)
    environment = {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    asked = [sys.executable, "-c", "import time; print(max(abs(time.time() - time.time()) for _ in range(9)) > 80000)"]
    assert subprocess.run(asked, env=environment, capture_output=True, check=True).stdout == b"True\n"
    words = inputs.words("train", tmp_path / "out")
    command = [sys.executable, "-m", "proxybyte.cli", *words]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-600:]
    sums = read_record(tmp_path / "out" / "model").sums
    assert sums == read_record(inputs.folder / "run" / "model").sums
