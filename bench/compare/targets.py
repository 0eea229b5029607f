"""The figures to reach, judged against stored results."""

import statistics
from dataclasses import dataclass

OURS = "corelane"


@dataclass(frozen=True)
class Ratio:
    """Ours over a peer's, in the same round; with several peers, over the one with the lowest median. The lowest of
    several noisy readings in each round would be no peer's figure."""

    title: str
    scenario: str
    case: str
    metric: str
    to: tuple
    most: float
    ours: str = OURS

    def row(self, results):
        ours = results.rounds(self.scenario, self.case, self.metric, self.ours)
        peers = [results.rounds(self.scenario, self.case, self.metric, peer) for peer in self.to]
        peers = [{n: value for n, value in peer.items() if value and value > 0} for peer in peers]
        best = min(filter(None, peers), key=lambda peer: statistics.median(peer.values()), default={})
        ratios = [value / best[number] for number, value in ours.items() if number in best]
        peer = " and ".join(self.to) if len(self.to) == 1 else "the better of " + " and ".join(self.to)
        return _row(self.title, f"{self.most:.2f} x {peer}", self.most, ratios, "{:.2f} x")


@dataclass(frozen=True)
class Absolute:
    """Our own figure, in a unit."""

    title: str
    scenario: str
    case: str
    metric: str
    most: float
    unit: str
    divide: float = 1

    def row(self, results):
        case = self.case or next(iter(results.cases(self.scenario)), "")
        values = [v / self.divide for v in results.rounds(self.scenario, case, self.metric, OURS).values()]
        return _row(self.title, f"{self.most:g} {self.unit}", self.most, values, "{:.2f} " + self.unit)


ALL = [
    Ratio("HTTP/1.1 one hop, saturated: CPU a request", "http1-1k", "saturated", "cpu_us", ("envoy",), 0.28),
    Ratio("same", "http1-1k", "saturated", "cpu_us", ("nginx", "haproxy"), 0.75),
    Ratio("same at 5,000 rps", "http1-1k", "5000 rps apart", "cpu_us", ("envoy",), 0.40),
    Ratio("same at 5,000 rps", "http1-1k", "5000 rps apart", "cpu_us", ("haproxy",), 1.0),
    Ratio("same at 5,000 rps (stretch)", "http1-1k", "5000 rps apart", "cpu_us", ("nginx",), 1.0),
    Ratio("two mTLS sidecars 1 KiB, saturated: CPU a request", "mtls-chain", "saturated 1k", "cpu_us", ("envoy",), 0.22),
    Ratio("same", "mtls-chain", "saturated 1k", "cpu_us", ("haproxy",), 0.70),
    Ratio("same, 64 KiB", "mtls-chain", "saturated 64k", "cpu_us", ("envoy",), 0.45),
    Ratio("p50 added by one hop at 1,000 rps", "http1-1k", "1000 rps apart", "added_p50_us", ("envoy",), 0.45),
    Ratio("same", "http1-1k", "1000 rps apart", "added_p50_us", ("haproxy",), 1.0),
    Absolute("hop budget: p99 added at 1,000 rps", "http1-1k", "1000 rps apart", "added_p99_us", 1000, "us"),
    Absolute("same, all on one core", "http1-1k", "1000 rps one-core", "added_p99_us", 1000, "us"),
    Ratio("resident memory, 1,000 clusters and routes", "routes-1000", "loaded", "memory_kib", ("envoy",), 0.2),
    Ratio("same", "routes-1000", "loaded", "memory_kib", ("haproxy",), 1.0),
    Absolute("memory of an idle keep-alive connection", "idle-connections", None, "kib_per_connection", 3, "KiB"),
    Absolute("idle process: memory", "idle-process", "idle", "memory_kib", 10, "MiB", 1024),
    Absolute("idle process: CPU", "idle-process", "idle", "millicores", 1, "millicores"),
    Ratio("epoll driver, one hop saturated", "http1-1k", "saturated", "cpu_us", ("corelane",), 1.5, "corelane-epoll"),
    Ratio("epoll driver, mTLS chain", "mtls-chain", "saturated 1k", "cpu_us", ("corelane",), 1.5, "corelane-epoll"),
]


def judge(results):
    """Rows of the table of figures to reach."""
    rows = [target.row(results) for target in ALL]
    for count in (1, 2):
        ours = list(results.rounds("workers", f"{count} workers", "cpu_us", OURS).values())
        rows.append(_row(f"{count} worker{'s' * (count > 1)}: CPU a request, saturated, unpinned", "both reported", None, ours, "{:.1f} us"))
    return rows


def _row(title, wanted, most, values, form):
    if not values:
        return title, wanted, "-", "-", "-", "not measured"
    middle = statistics.median(values)
    spread = f"{form.format(min(values))} .. {form.format(max(values))}"
    verdict = "" if most is None else "pass" if middle <= most else "FAIL"
    at_most = "-" if most is None else f"{most:g}"
    return title, wanted, at_most, form.format(middle), spread, verdict
