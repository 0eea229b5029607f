#!/usr/bin/env python3
"""Runs every test there is and closes with one honest line: N passed, N failed, N skipped.

Each step is an ordinary command whose output is passed through. A step fails when its command fails, when it says
that a test failed, or when it ran no test at all; a skipped test fails the run unless allowed-skips.txt names it.
"""

import argparse
import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEP_SECONDS_MAX = 30 * 60
CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")
CARGO_IGNORED = re.compile(r"^test (\S+).* \.\.\. ignored")
PYTHON_RESULT = re.compile(r"^Ran (\d+) tests? in")
PYTHON_BAD = re.compile(r"^FAILED \((.*)\)|^OK \((.*)\)")


class Tally:
    def __init__(self):
        self.passed, self.failed, self.skips = 0, 0, []

    def line(self):
        return f"{self.passed} passed, {self.failed} failed, {len(self.skips)} skipped"

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skips += other.skips


def whole_command(_lines, tally):
    """A command that is one test by itself."""
    tally.passed += 1


def cargo_tests(lines, tally):
    ran = False
    for line in lines:
        if found := CARGO_RESULT.match(line):
            ran = True
            tally.passed += int(found[1])
            tally.failed += int(found[2])
        elif found := CARGO_IGNORED.match(line):
            tally.skips.append(found[1])
    if not ran:
        raise ValueError("no test ran")


def python_tests(lines, tally):
    total = sum(int(found[1]) for line in lines if (found := PYTHON_RESULT.match(line)))
    if not total:
        raise ValueError("no test ran")
    bad = {}
    for line in lines:
        if found := PYTHON_BAD.match(line):
            bad = dict(part.split("=") for part in (found[1] or found[2]).split(", "))
    failed = sum(int(bad.get(kind, 0)) for kind in ("failures", "errors", "unexpected successes"))
    skipped = int(bad.get("skipped", 0))
    tally.failed += failed
    tally.passed += total - failed - skipped
    tally.skips += ["python"] * skipped


def steps():
    test = ["cargo", "test", "--locked", "--workspace"]
    yield "fmt", ["cargo", "fmt", "--all", "--check"], {}, whole_command
    lint = ["cargo", "clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]
    yield "clippy", lint, {}, whole_command
    yield "tidy", [*test, "--test", "tidy"], {}, cargo_tests
    for driver in ("io_uring", "epoll"):
        env = {"CORELANE_TEST_DRIVER": driver}
        yield f"tests, {driver}", [*test, "--no-fail-fast"], env, cargo_tests
    for folder in ("bench/compare", "flamegraphs"):
        run = [sys.executable, "-m", "unittest", "discover", "-s", folder, "-p", "test_*.py"]
        yield folder, run, {}, python_tests


def io_uring_allowed():
    """Whether this process may set up a ring at all; asked of the kernel, as the sidecar does."""
    libc = ctypes.CDLL(None, use_errno=True)
    io_uring_setup, parameters = 425, ctypes.create_string_buffer(256)
    ring = libc.syscall(io_uring_setup, 4, parameters)
    if ring >= 0:
        os.close(ring)
    return ring >= 0


def run_step(command, extra, read):
    """Runs one command with its output passed through, and counts."""
    tally = Tally()
    lines = []
    with tempfile.NamedTemporaryFile("r", prefix="corelane-skips-") as skips:
        env = {**os.environ, "CARGO_TERM_COLOR": "never", "CORELANE_TEST_SKIPS": skips.name, **extra}
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
        signal.alarm(STEP_SECONDS_MAX)
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line.rstrip("\n"))
        code = process.wait()
        signal.alarm(0)
        skipped_at_run_time = [line.split("\t")[0].strip() for line in skips.read().splitlines() if line.strip()]
    try:
        read(lines, tally)
    except ValueError as error:
        print(f"suite: {error}")
        code = code or 1
    if code and not tally.failed:
        tally.failed += 1
        tally.passed -= 1 if read is whole_command else 0
    # a test that skips itself while it runs was counted as passed by its runner
    tally.passed -= len(skipped_at_run_time)
    tally.skips += skipped_at_run_time
    return tally


def allowed_skips():
    text = (ROOT / ".ci/allowed-skips.txt").read_text()
    return {re.split(r"\s{2,}", line)[0] for line in text.splitlines() if line and not line.startswith("#")}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="run only the steps whose names begin so; may be repeated")
    only = parser.parse_args().only
    total, report = Tally(), []
    for name, command, extra, read in steps():
        if only and not any(name.startswith(wanted) for wanted in only):
            continue
        if not only and name == "tidy":
            continue  # part of the workspace's tests
        began = time.monotonic()
        if extra.get("CORELANE_TEST_DRIVER") == "io_uring" and not io_uring_allowed():
            tally = Tally()
            tally.skips.append("io_uring driver")
        else:
            print(f"\n=== {name}: {' '.join(command)}", flush=True)
            tally = run_step(command, extra, read)
        report.append(f"{name:16} {tally.line()} in {time.monotonic() - began:.0f} s")
        total.add(tally)
    unexpected = sorted(set(total.skips) - allowed_skips())
    total.failed += len(unexpected)
    print("\n=== summary")
    print("\n".join(report))
    for skip in sorted(set(total.skips)):
        print(f"skipped: {skip}" + (" (not in .ci/allowed-skips.txt: counts as failed)" if skip in unexpected else ""))
    print(total.line(), flush=True)
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
