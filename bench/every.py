"""All benchmarks, one after the other, each in a process of its own: one that fails or hangs costs its own figures."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import IO

from bench.frame import Bench, machine, progress, versions
from bench.results import Outcome, Results
from tests.lab.processes import PROJECT

LONGEST = 600.0
"""Seconds that a benchmark may take."""

_CLEANING = 60.0
"""Seconds that it has for cleaning up when it is told to end."""

_ENDING = 1.0
"""Seconds between its last word and its end."""

_TOLD = 20
"""Lines of what it said last that tell why it failed."""


def measure(benches: Iterable[Bench], quick: bool) -> Results:
    """Runs them; what failed says so in its outcome."""
    date, began = time.strftime("%Y-%m-%d"), time.monotonic()
    outcomes: dict[str, Outcome] = {}
    for bench in benches:
        outcomes[bench.name] = outcome = _measure(bench, quick)
        progress(f"{bench.name}: {'FAILED' if outcome.failure else 'done'} after {outcome.seconds:.0f} s")
    return Results(date, quick, round(time.monotonic() - began, 1), machine(), versions(), outcomes)


def _measure(bench: Bench, quick: bool) -> Outcome:
    argv = [sys.executable, "-m", "bench.main", bench.name, "--json", *(["--quick"] if quick else [])]
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        # A session of its own: Ctrl-C comes to us, and we tell it to end once.
        child = subprocess.Popen(
            argv, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, start_new_session=True
        )
        last: deque[str] = deque(maxlen=_TOLD)
        timer = threading.Timer(LONGEST, _end, (child,))
        timer.start()
        try:
            if child.stderr is not None:
                _pass_on(child.stderr, last)  # until it has ended
        finally:
            timer.cancel()
            _end(child)
        seconds = round(time.monotonic() - began, 1)
        output.seek(0)
        if child.returncode == 0:
            result = json.loads(output.read())
            return Outcome(bench.about, bench.means, seconds, result["figures"], result["peers"])
    why = f"did not end within {LONGEST:g} s" if seconds >= LONGEST else f"exit code {child.returncode}"
    return Outcome(bench.about, bench.means, seconds, failure="\n".join([why, *last]))


def _pass_on(stream: IO[bytes], last: deque[str]) -> None:
    """What the benchmark says, until it says no more; `last` keeps the end of it."""
    with stream:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            last.append(text)
            print(text, file=sys.stderr, flush=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends it if it runs, by a signal that lets it clean up."""
    with suppress(subprocess.TimeoutExpired):
        child.wait(_ENDING)
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_CLEANING)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
