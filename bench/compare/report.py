#!/usr/bin/env python3
"""Turns stored results into tables: for the terminal, docs/benchmark-report.md and README.md. No figure is typed."""

import json
import re
import statistics
import sys
from pathlib import Path

import scenarios
import targets

HEAD = "<!-- Written by bench/compare/report.py from bench/results; do not edit. -->\n"
# peers in the order of the columns
ORDER = ["corelane", "corelane-epoll", "envoy", "envoy-minimal", "haproxy", "nginx"]
OURS = "corelane"


class Results:
    """All stored records of one folder, by scenario, case, metric and peer."""

    def __init__(self, files):
        self.files = files
        self.machine = next((file["machine"] for file in files.values()), {})
        self.values = {}
        self.doubts = []
        self.failures = []
        for name, file in files.items():
            self.failures += file["failures"]
            for record in file["records"]:
                if not record["valid"]:
                    reasons = "; ".join(record["reasons"])
                    self.doubts.append((name, record["case"], record["peer"], record["round"], reasons))
                for metric, value in record["metrics"].items():
                    key = (name, record["case"], metric, record["peer"])
                    self.values.setdefault(key, {})[record["round"]] = value
        self._subtract_direct()

    @classmethod
    def load(cls, folder):
        paths = {name: Path(folder) / f"{name}.json" for name in scenarios.ALL}
        return cls({name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()})

    def _subtract_direct(self):
        """What a hop adds: its latency less that of the same round without any proxy."""
        for (name, case, metric, peer), rounds in list(self.values.items()):
            direct = self.values.get((name, case, metric, "direct"))
            if direct is None or peer == "direct" or not re.fullmatch(r"p\d+_us", metric):
                continue
            added = {number: value - direct[number] for number, value in rounds.items() if number in direct}
            self.values[(name, case, f"added_{metric}", peer)] = added

    def rounds(self, name, case, metric, peer):
        return self.values.get((name, case, metric, peer), {})

    def median(self, name, case, metric, peer):
        rounds = self.rounds(name, case, metric, peer)
        return statistics.median(rounds.values()) if rounds else None

    def ratios(self, name, case, metric, peer, to):
        """Ours over theirs, round by round: what drifts between rounds cancels."""
        ours, theirs = self.rounds(name, case, metric, peer), self.rounds(name, case, metric, to)
        # an added latency can come out below zero, and then there is nothing to be a multiple of
        return [ours[number] / theirs[number] for number in sorted(ours) if theirs.get(number, 0) > 0]

    def cases(self, name):
        # a peer has all cases in the order of the scenario, the direct connection only some
        keys = sorted((key for key in self.values if key[0] == name), key=lambda key: key[3] == "direct")
        return list(dict.fromkeys(key[1] for key in keys))

    def metrics(self, name, case):
        return list(dict.fromkeys(key[2] for key in self.values if key[:2] == (name, case)))

    def peers(self, name, case, metric):
        found = {key[3] for key in self.values if key[:3] == (name, case, metric)}
        return [peer for peer in ORDER if peer in found] + sorted(found - set(ORDER))


LABELS = {
    "cpu_us": "CPU us a request",
    "throughput": "requests a second",
    "per_second": "connections a second",
    "per_second_of_cpu": "connections a CPU second",
    "memory_kib": "resident KiB",
    "before_kib": "resident KiB before",
    "kib_per_connection": "KiB a connection",
    "ready_ms": "ms until ready",
    "millicores": "millicores",
}


def label(metric):
    if metric in LABELS:
        return LABELS[metric]
    found = re.fullmatch(r"(added_)?p(\d\d)(\d?)_us", metric)
    point = f"p{found[2]}{'.' + found[3] if found[3] else ''}"
    return f"{point} us added" if found[1] else f"{point} us"


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(values):
    return f"{number(min(values))}..{number(max(values))}" if values else "-"


def tables(results, name):
    """Two tables: medians with their spread over the rounds, and our ratio to each peer with its spread."""
    peers = [peer for peer in ORDER if any(key[0] == name and key[3] == peer for key in results.values)]
    peers += sorted({key[3] for key in results.values if key[0] == name} - set(peers))
    medians, ratios = [], []
    for case in results.cases(name):
        metrics = results.metrics(name, case)
        for metric in metrics:
            row = [case, label(metric)]
            medians.append(row + [_cell(list(results.rounds(name, case, metric, peer).values())) for peer in peers])
            others = [peer for peer in peers if peer not in (OURS, "direct")]
            compared = [_cell(results.ratios(name, case, metric, OURS, peer)) for peer in others]
            if any(cell != "-" for cell in compared) and not metric.startswith("p"):
                ratios.append(row + compared)
    header = ["case", "figure"]
    yield "median (min..max)", header + peers, medians
    yield "ours / theirs", header + [peer for peer in peers if peer not in (OURS, "direct")], ratios


def _cell(values):
    if not values:
        return "-"
    middle = number(statistics.median(values))
    return f"{middle} ({spread(values)})" if len(values) > 1 else middle


def terminal(results, names):
    """Plain tables, two per scenario."""
    text = []
    for name in names:
        for title, header, body in tables(results, name):
            if not body:
                continue
            widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]
            text.append(f"\n{name}: {title}")
            text += ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [header, *body]]
    for failure in results.failures:
        text.append(f"FAILED {failure['scenario']} {failure['peer']} round {failure['round'] + 1}: {failure['reason']}")
    return "\n".join(text)


def markdown(header, body):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body]) + "\n"


def document(results, folder):
    """docs/benchmark-report.md."""
    machine = results.machine
    versions = [(peer, f"`{version}`") for peer, version in machine["versions"].items()]
    cpu = machine["cpu"] + (" (virtual machine)" if machine["hypervisor"] else "")
    text = [
        HEAD,
        "# Benchmark report",
        f"""
Measured {machine['date'][:10]} on {machine['cpus']} x {cpu}, {machine['memory_mib'] // 1024} GiB, Linux {machine['kernel']},
at commit `{machine['commit']}`: {machine['rounds']} rounds of {machine['window_seconds']} s windows, peers interleaved within each round.
Raw data: `bench/results/{folder.name}/`. How each peer is configured and why: `bench/compare/README.md`.
`make bench` measures and writes this page again.

A figure is the median over the rounds with its smallest and largest value; a ratio is ours over theirs within one round
(below 1: ours is less), again with its spread. The machine's speed drifts, so only ratios compare between runs.
CPU per request is the proxy's own, all threads, user and kernel; metrics are on and access logs off everywhere.
`corelane` runs on io_uring, `corelane-epoll` is the same binary with `--driver epoll`; both run the file that `envoy` runs.
""",
        markdown(("peer", "version"), versions),
        "## Figures to reach\n",
        markdown(("scenario", "figure", "at most", "measured", "spread", ""), targets.judge(results)),
    ]
    for name in results.files:
        text.append(f"## {name}\n")
        text.append(results.files[name].get("about", ""))
        for title, header, body in tables(results, name):
            if body:
                text.append(f"\n{title}:\n\n{markdown(header, body)}")
    text.append(_doubts(results))
    return "\n".join(text)


def _doubts(results):
    if not results.doubts and not results.failures:
        return "## Windows in doubt\n\nNone: every window was valid.\n"
    body = [(name, case, peer, str(number + 1), why) for name, case, peer, number, why in results.doubts]
    body += [(f["scenario"], "", f["peer"], str(f["round"] + 1), "failed: " + f["reason"]) for f in results.failures]
    intro = "Kept in the medians above, and named here.\n"
    return "## Windows in doubt\n\n" + intro + "\n" + markdown(("scenario", "case", "peer", "round", "why"), body)


def comparison(results):
    """The README's table: the figures that a reader asks for first."""
    wanted = [
        ("HTTP/1.1 hop, saturated: CPU us a request", "http1-1k", "saturated", "cpu_us", 1),
        ("same at 5,000 requests a second", "http1-1k", "5000 rps apart", "cpu_us", 1),
        ("two mTLS hops, 1 KiB: CPU us a request", "mtls-chain", "saturated 1k", "cpu_us", 1),
        ("two mTLS hops, 64 KiB: CPU us a request", "mtls-chain", "saturated 64k", "cpu_us", 1),
        ("p50 added at 1,000 requests a second, us", "http1-1k", "1000 rps apart", "added_p50_us", 1),
        ("p99 added at 1,000 requests a second, us", "http1-1k", "1000 rps apart", "added_p99_us", 1),
        ("full mTLS handshake: CPU us", "tls-handshakes", "full", "cpu_us", 1),
        ("1,000 clusters and routes: MiB", "routes-1000", "loaded", "memory_kib", 1024),
        ("idle keep-alive connection: KiB", "idle-connections", None, "kib_per_connection", 1),
        ("same over mTLS: KiB", "idle-connections", "10000 held over mTLS", "kib_per_connection", 1),
        ("same over HTTP/2: KiB", "idle-connections", "10000 held over HTTP/2", "kib_per_connection", 1),
        ("idle process: MiB", "idle-process", "idle", "memory_kib", 1024),
    ]
    present = {key[3] for key in results.values}
    peers = [peer for peer in ORDER if peer in present]
    body = []
    for title, name, case, metric, unit in wanted:
        case = case or next(iter(results.cases(name)), "")
        medians = [results.median(name, case, metric, peer) for peer in peers]
        if any(value is not None for value in medians):
            body.append((title, *(number(value / unit) if value is not None else "-" for value in medians)))
    machine = results.machine
    note = (
        f"\nMedians of {machine['rounds']} rounds, {machine['date'][:10]}, {machine['cpus']} x {machine['cpu']}, "
        f"Linux {machine['kernel']}; [the whole report](docs/benchmark-report.md).\n"
    )
    return markdown(("", *peers), body) + note


def write_all(root, folder):
    results = Results.load(folder)
    page = root / "docs/benchmark-report.md"
    page.write_text(document(results, folder))
    print(f"wrote {page.relative_to(root)}", file=sys.stderr)
    readme = root / "README.md"
    text = readme.read_text() if readme.exists() else ""
    marked = re.compile(r"(<!-- bench:begin -->\n).*?(<!-- bench:end -->)", re.S)
    if marked.search(text):
        readme.write_text(marked.sub(lambda found: found[1] + comparison(results) + found[2], text))
        print("wrote the comparison table of README.md", file=sys.stderr)


def main():
    root = Path(__file__).resolve().parents[2]
    stored = sorted(path for path in (root / "bench/results").iterdir() if path.is_dir())
    if len(sys.argv) > 2 or not (stored or sys.argv[1:]):
        sys.exit("usage: report.py [folder of results]; without one, the newest of bench/results")
    write_all(root, Path(sys.argv[1]).resolve() if sys.argv[1:] else stored[-1])


if __name__ == "__main__":
    main()
