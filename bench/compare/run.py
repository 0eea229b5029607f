#!/usr/bin/env python3
"""Compares proxies side by side on this machine; see README.md in this folder."""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import peers as peer_module
import report
import scenarios
from measure import Failed, Loadtest, stop_on_signals

ROOT = Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds over all peers (default 5)")
    parser.add_argument("--seconds", type=float, default=2.5, help="length of one measured window (default 2.5)")
    parser.add_argument("--quick", action="store_true", help="one round of one-second windows: does it work, not how fast")
    parser.add_argument("--scenario", action="append", choices=list(scenarios.ALL), help="only this one; may be repeated")
    parser.add_argument("--peer", action="append", help="only this one; may be repeated")
    parser.add_argument("--peer-file", action="append", default=[], help="JSON description of a further peer")
    parser.add_argument("--sidecar", type=Path, default=ROOT / "target/release/corelane-sidecar")
    parser.add_argument("--loadtest", type=Path, default=ROOT / "target/release/corelane-loadtest")
    parser.add_argument("--cpus", help="two CPUs, proxy's and generator's (default: the first two allowed)")
    parser.add_argument("--results", type=Path, help="folder for raw results (default bench/results/<date>-<machine>)")
    parser.add_argument("--no-report", action="store_true", help="do not rewrite docs/benchmark-report.md and README.md")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, min(options.seconds, 1.0)
    return options


def main():
    options = arguments()
    stop_on_signals()
    cpus = choose_cpus(options.cpus)
    everyone = peer_module.every(options.sidecar, ROOT / ".tools", options.peer_file)
    chosen = choose_peers(everyone, options.peer)
    names = options.scenario or list(scenarios.ALL)
    folder = options.results or ROOT / "bench/results" / f"{datetime.date.today()}-{machine_name()}"
    with tempfile.TemporaryDirectory(prefix="corelane-bench-") as temporary:
        directory = Path(temporary)
        loadtest = Loadtest(options.loadtest, directory, ROOT / "loadtest/scenarios")
        loadtest.certs(directory / "certs")
        bench = scenarios.Bench(loadtest, cpus, directory, directory / "certs", options.seconds)
        runner = Runner(bench, chosen, options.rounds)
        machine = describe(options, cpus, chosen)
        try:
            runner.run(names)
        except KeyboardInterrupt:
            print("\nstopped; what has been measured is kept", file=sys.stderr)
        finally:
            # half an hour of measuring is not lost to a fault in the last minute
            runner.store(folder, machine)
    if runner.records:
        print(report.terminal(report.Results.load(folder), names))
        print(f"raw results: {os.path.relpath(folder)}", file=sys.stderr)
    if runner.records and not options.no_report and not options.quick:
        report.write_all(ROOT, folder)
    return 0 if runner.records and not runner.failures else 1


def choose_cpus(text):
    allowed = sorted(os.sched_getaffinity(0))
    chosen = [int(cpu) for cpu in text.split(",")] if text else allowed[:2]
    if len(chosen) != 2 or not set(chosen) <= set(allowed):
        sys.exit(f"two CPUs are needed, one for the proxy and one for the generator; allowed here: {allowed}")
    return chosen


def choose_peers(everyone, wanted):
    known = [peer.name for peer in everyone]
    for name in wanted or []:
        if name not in known:
            sys.exit(f"no peer {name!r}: known are {', '.join(known)}")
    chosen = [peer for peer in everyone if (not wanted or peer.name in wanted) and peer.binary]
    for peer in everyone:
        if not peer.binary and (not wanted or peer.name in wanted):
            print(f"left out: {peer.name}, its binary was not found", file=sys.stderr)
    if not chosen:
        sys.exit("no peer to measure")
    return chosen


class Runner:
    """Interleaves peers and rounds, so that a slow quarter of an hour hits everybody."""

    def __init__(self, bench, peers, rounds):
        self.bench = bench
        self.peers = peers
        self.rounds = rounds
        self.records = []
        self.failures = []
        self.started = time.monotonic()
        self.done = 0
        self.total = 0

    def run(self, names):
        self.total = sum(len(self._turn(name, 0)) for name in names) * self.rounds
        for number in range(self.rounds):
            self.bench.round = number
            for name in names:
                scenario = scenarios.ALL[name]
                if isinstance(scenario, scenarios.IdleProcess):
                    for peer, outcome in scenario.measure(self.bench, self.peers):
                        self._keep(name, peer.name, number, outcome)
                        self.done += 1
                    continue
                for peer in self._turn(name, number):
                    self._measure(name, scenario, peer, number)
                    self.done += 1

    def _turn(self, name, number):
        """The peers of one round, each round beginning with another."""
        able = [peer for peer in self.peers if peer.why_not(probe_job(name)) is None]
        shift = number % max(len(able), 1)
        able = able[shift:] + able[:shift]
        return [None, *able] if name in scenarios.WITH_DIRECT else able

    def _measure(self, name, scenario, peer, number):
        try:
            for record in scenario(self.bench, peer):
                self._keep(name, peer.name if peer else "direct", number, record)
        except Failed as failure:
            self._keep(name, peer.name if peer else "direct", number, failure)

    def _keep(self, name, peer, number, outcome):
        if isinstance(outcome, Failed):
            # results are committed: they tell nothing of where this checkout lies
            reason = str(outcome).replace(str(ROOT), ".").replace(str(Path.home()), "~")
            self.failures.append({"scenario": name, "peer": peer, "round": number, "reason": reason})
            self._say(number, f"{name} {peer}: FAILED: {outcome}")
            return
        self.records.append({"scenario": name, "peer": peer, "round": number, **outcome})
        shown = "  ".join(f"{key} {value:,.1f}" for key, value in outcome["metrics"].items())
        doubt = "" if outcome["valid"] else f"  INVALID: {'; '.join(outcome['reasons'])}"
        self._say(number, f"{name} {peer} {outcome['case']}: {shown}{doubt}")

    def _say(self, number, text):
        spent = time.monotonic() - self.started
        left = f"{spent / self.done * (self.total - self.done):4.0f}" if self.done else "   ?"
        print(f"[{number + 1}/{self.rounds} {spent:4.0f} s, {left} s left] {text}", file=sys.stderr, flush=True)

    def store(self, folder, machine):
        """One file per scenario; a later run on the same day replaces the scenarios that it measured."""
        if not self.records and not self.failures:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name in {record["scenario"] for record in self.records + self.failures}:
            head = {"scenario": name, "about": " ".join(scenarios.ALL[name].__doc__.split()), "machine": machine}
            records = [record for record in self.records if record["scenario"] == name]
            failures = [failure for failure in self.failures if failure["scenario"] == name]
            # one record a line, so that a diff shows which window changed
            lines = ",\n".join(json.dumps(record, separators=(",", ":")) for record in records)
            text = json.dumps({**head, "failures": failures}, indent=1)[:-2] + f',\n "records": [\n{lines}\n]}}\n'
            (folder / f"{name}.json").write_text(text)


def probe_job(name):
    """A job of the scenario's kind, to ask a peer whether it can."""
    kind = "tcp" if name == "tcp-relay" else "http"
    tls = name in ("tls-handshakes", "mtls-chain")
    return scenarios.Job(1, 1, 1, kind=kind, tls_in=tls, routes=1 if name == "routes-1000" else 0)


def machine_name():
    words = re.sub(r"\(.*?\)|CPU|Processor|@.*", " ", cpu_model()).split()
    return "-".join([*words, f"{os.cpu_count()}cpu"]).lower()


def cpu_model():
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1].strip() if found else platform.machine()


def describe(options, cpus, chosen):
    """What a reader needs to judge the figures."""
    head = ROOT / ".git/HEAD"
    commit = head.read_text().strip() if head.exists() else ""
    if commit.startswith("ref: ") and (ROOT / ".git" / commit[5:]).exists():
        commit = (ROOT / ".git" / commit[5:]).read_text().strip()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "hypervisor": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "kernel": platform.release().split("-")[0],
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "python": platform.python_version(),
        "commit": commit[:12],
        "rounds": options.rounds,
        "window_seconds": options.seconds,
        "proxy_cpu": cpus[0],
        "load_cpu": cpus[1],
        "load_average_at_start": os.getloadavg()[0],
        "versions": {peer.name: peer.version() for peer in chosen},
    }


if __name__ == "__main__":
    if not shutil.which("taskset"):
        sys.exit("taskset (util-linux) is needed to pin the proxies")
    sys.exit(main())
