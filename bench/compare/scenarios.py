"""What is measured. Each scenario is a function that measures one peer once (or the direct connection, with peer None)
and yields records; run.py interleaves peers and rounds.

A record is {"case": what within the scenario, "metrics": {name: number}, "valid": bool, "reasons": [...], "raw": ...}.
CPU metrics are microseconds of the proxy's CPU time per request, over all its threads and, in a chain, both hops.
"""

import contextlib
import time

import http2
from configs import Job
from measure import Failed, cpu_ns, pin, resident_kib

STEADY_RATES = (1000, 5000)
ROUTES = 1000
IDLE_CONNECTIONS = 10_000
# a proxy may park a connection's buffers only after it has been idle for a while
IDLE_SETTLE_SECONDS = 2.0
# who holds idle connections over mTLS and over HTTP/2 too, in the first round: memory hardly varies, and opening ten
# thousand with mTLS takes seconds. Our other driver and the other Envoy hold what their twins do; HAProxy's and
# nginx's TLS is the same library, which needs 13 s for the handshakes.
IDLE_MTLS = ("corelane", "envoy", "haproxy")
IDLE_HTTP2 = ("corelane", "envoy", "haproxy", "nginx")


class Bench:
    """What every scenario needs: the generator, the two CPUs, a directory and the window's length."""

    def __init__(self, loadtest, cpus, directory, certs, seconds):
        self.loadtest = loadtest
        # the proxy's, and the generator's
        self.hop_cpu, self.load_cpu = cpus
        self.directory = directory
        self.certs = certs
        self.seconds = seconds
        # counted from 0
        self.round = 0

    def steady(self, scenario, target, cpu, pids, rate):
        """A window at a fixed rate; one that something else on the machine disturbed is measured once more."""
        report = self.loadtest.run(scenario, target, cpu, pids, self.seconds, rate=rate)
        if report["valid"]:
            return report
        again = self.loadtest.run(scenario, target, cpu, pids, self.seconds, rate=rate)
        return {**again, "measured_twice_because": report["invalid_reasons"]}

    @contextlib.contextmanager
    def hop(self, peer, upstream, cpus=None, **job):
        def make(listen, admin):
            return Job(listen=listen, upstream=upstream, admin=admin, certs=self.certs, **job)

        hop = peer.start(make, str(self.hop_cpu) if cpus is None else cpus, self.directory)
        with hop.child:
            yield hop


def http1_1k(bench, peer):
    """One HTTP/1.1 hop, 1 KiB: saturated with the backend beside the proxy, then steady in two layouts."""
    with bench.loadtest.backend(str(bench.load_cpu)) as backend, contextlib.ExitStack() as stack:
        if peer:
            hop = stack.enter_context(bench.hop(peer, backend.port))
            pids, port = hop.pids(), hop.job.listen
            pin(backend.pid, bench.hop_cpu)
            yield _saturation(bench, "http1-1k", f"http://127.0.0.1:{port}/", pids, hop)
        else:
            pids, port = [], backend.port
        for layout, cpu in (("apart", bench.load_cpu), ("one-core", bench.hop_cpu)):
            pin(backend.pid, cpu)
            for rate in STEADY_RATES:
                target = f"http://127.0.0.1:{port}/"
                report = bench.steady("http1-1k", target, cpu, pids, rate)
                yield _record(f"{rate} rps {layout}", report, _latency(report))


# of the chain, by body; what 64 KiB cost at the higher rate is near their saturation
CHAIN_RATES = {"1k": STEADY_RATES, "64k": STEADY_RATES[:1]}


def mtls_chain(bench, peer):
    """Two sidecars on one core with mTLS between them, 1 KiB and 64 KiB: saturated, then steady."""
    for case, scenario, size in (("1k", "http1-1k", 1024), ("64k", "http1-64k", 64 * 1024)):
        with contextlib.ExitStack() as stack:
            arguments = ("--body-bytes", str(size))
            backend = stack.enter_context(bench.loadtest.backend(str(bench.load_cpu), *arguments))
            pids, port = [], backend.port
            if peer:
                inner = stack.enter_context(bench.hop(peer, backend.port, tls_in=True))
                outer = stack.enter_context(bench.hop(peer, inner.job.listen, tls_out=True))
                pids, port = outer.pids() + inner.pids(), outer.job.listen
                record = _saturation(bench, scenario, f"http://127.0.0.1:{port}/", pids, outer, inner)
                yield {**record, "case": f"saturated {case}"}
            for rate in CHAIN_RATES[case]:
                report = bench.steady(scenario, f"http://127.0.0.1:{port}/", bench.load_cpu, pids, rate)
                yield _record(f"{rate} rps {case}", report, _latency(report))


def tcp_relay(bench, peer):
    """Bytes both ways without a protocol, 1 KiB messages that an echo server returns: saturated with the backend beside
    the proxy, then steady with it beside the generator."""
    with bench.loadtest.backend(str(bench.load_cpu), "--mode", "echo") as backend, contextlib.ExitStack() as stack:
        pids, port = [], backend.port
        if peer:
            hop = stack.enter_context(bench.hop(peer, backend.port, kind="tcp"))
            pids, port = hop.pids(), hop.job.listen
            pin(backend.pid, bench.hop_cpu)
            yield _saturation(bench, "tcp-1k", f"tcp://127.0.0.1:{port}", pids, hop)
            pin(backend.pid, bench.load_cpu)
        for rate in STEADY_RATES:
            report = bench.steady("tcp-1k", f"tcp://127.0.0.1:{port}", bench.load_cpu, pids, rate)
            yield _record(f"{rate} rps", report, _latency(report))


def tls_handshakes(bench, peer):
    """New mTLS connections, each with one request, in full and resumed."""
    with (
        bench.loadtest.backend(str(bench.load_cpu)) as backend,
        bench.hop(peer, backend.port, tls_in=True) as hop,
    ):
        for case, resume in (("full", False), ("resumed", True)):
            target = f"https://localhost:{hop.job.listen}/"
            report = bench.loadtest.handshakes(target, bench.load_cpu, hop.pids(), bench.seconds, resume, bench.certs)
            used = sum(watched["cpu_us"] for watched in report["watched"])
            each = used / max(report["completed"], 1)
            metrics = {"cpu_us": each, "per_second_of_cpu": 1e6 / max(each, 1e-9)}
            if not report["generator_limited"]:
                metrics["per_second"] = report["per_second"]
            record = _record(case, report, metrics)
            if report["failed"] > report["completed"] // 100:
                record["valid"] = False
                record["reasons"] = record["reasons"] + [f"{report['failed']} failed: {report['last_failure']}"]
            yield record


def routes_1000(bench, peer):
    """A thousand virtual hosts, each with its own cluster: memory, and time from exec to the first answer."""
    with (
        bench.loadtest.backend(str(bench.load_cpu)) as backend,
        bench.hop(peer, backend.port, routes=ROUTES) as hop,
    ):
        metrics = {"memory_kib": resident_kib(hop.pids()), "ready_ms": hop.ready_seconds * 1e3}
        yield {"case": "loaded", "metrics": metrics, "valid": True, "reasons": [], "raw": None}


def idle_connections(bench, peer):
    """Ten thousand keep-alive connections that have carried one request each and now carry none; in the first round
    also over mTLS and over HTTP/2, where some peers stand for the others."""

    def plain(hop):
        target = f"http://127.0.0.1:{hop.job.listen}/"
        bench.loadtest.run("http1-1k", target, bench.load_cpu, hop.pids(), 0.3, warmup=0.1)
        return lambda: bench.loadtest.idle(target, str(bench.load_cpu), str(IDLE_CONNECTIONS))

    def mtls(hop):
        target = f"https://localhost:{hop.job.listen}/"
        bench.loadtest.handshakes(target, bench.load_cpu, hop.pids(), 0.3, False, bench.certs)
        return lambda: bench.loadtest.idle(target, str(bench.load_cpu), str(IDLE_CONNECTIONS), bench.certs)

    def http_2(hop):
        target = f"http://127.0.0.1:{hop.job.listen}/"
        bench.loadtest.run("http2-1k", target, bench.load_cpu, hop.pids(), 0.3, warmup=0.1)
        return lambda: http2.hold(hop.job.listen, "payments", IDLE_CONNECTIONS)

    yield _held(bench, peer, "", plain)
    if bench.round == 0 and peer.name in IDLE_MTLS:
        yield _held(bench, peer, " over mTLS", mtls, tls_in=True)
    if bench.round == 0 and peer.name in IDLE_HTTP2:
        yield _held(bench, peer, " over HTTP/2", http_2, http2=True)


def _held(bench, peer, how, warm, **job):
    """Memory before and with idle connections. `warm` uses the hop once and returns what opens and holds them."""
    with (
        bench.loadtest.backend(str(bench.load_cpu)) as backend,
        bench.hop(peer, backend.port, connections_max=IDLE_CONNECTIONS + 512, **job) as hop,
    ):
        # first use of code and pools is not what an idle connection costs
        hold = warm(hop)
        time.sleep(0.5)
        before = resident_kib(hop.pids())
        with hold() as idle:
            raw = getattr(idle, "established", idle)
            time.sleep(IDLE_SETTLE_SECONDS)
            after = resident_kib(hop.pids())
        held = raw["connections"]
        metrics = {"kib_per_connection": (after - before) / held, "memory_kib": after, "before_kib": before}
        return {"case": f"{held} held{how}", "metrics": metrics, "valid": True, "reasons": [], "raw": raw}


def workers(bench, peer):
    """One HTTP/1.1 hop saturated with one and with two workers, everything on both CPUs: what a second worker costs."""
    both = f"{bench.hop_cpu},{bench.load_cpu}"
    for count in (1, 2):
        with (
            bench.loadtest.backend(both) as backend,
            bench.hop(peer, backend.port, cpus=both, workers=count) as hop,
        ):
            target = f"http://127.0.0.1:{hop.job.listen}/"
            # an unpinned generator: three processes share two CPUs as the kernel sees fit
            report = bench.loadtest.run("http1-1k", target, None, hop.pids(), bench.seconds)
            yield _record(f"{count} workers", report, _cpu(report))


class IdleProcess:
    """Started and left alone: memory, and CPU over ten seconds. All peers idle at the same time."""

    seconds = 10

    def measure(self, bench, peers):
        """Yields (peer, record)."""
        with contextlib.ExitStack() as stack:
            backend = stack.enter_context(bench.loadtest.backend(str(bench.load_cpu)))
            hops = []
            for peer in peers:
                try:
                    hops.append((peer, stack.enter_context(bench.hop(peer, backend.port))))
                except Failed as failure:
                    yield peer, failure
            time.sleep(1.5)
            before = [cpu_ns(hop.pids()) for _, hop in hops]
            started = time.monotonic()
            time.sleep(self.seconds)
            for (peer, hop), used in zip(hops, before):
                millicores = (cpu_ns(hop.pids()) - used) / (time.monotonic() - started) / 1e6
                metrics = {"memory_kib": resident_kib(hop.pids()), "millicores": millicores}
                yield peer, {"case": "idle", "metrics": metrics, "valid": True, "reasons": [], "raw": None}


def _saturation(bench, scenario, target, pids, *hops):
    report = bench.loadtest.run(scenario, target, bench.load_cpu, pids, bench.seconds)
    used = sum(resident_kib(hop.pids()) for hop in hops)
    return _record("saturated", report, {**_cpu(report), "memory_kib": used})


def _cpu(report):
    each = sum(watched["cpu_us"] for watched in report["watched"]) / max(report["finished_inside"], 1)
    return {"cpu_us": each, "throughput": report["throughput"]}


def _latency(report):
    # the rate is given, so only its cost is of interest
    metrics = {"cpu_us": _cpu(report)["cpu_us"]} if report["watched"] else {}
    for name in ("p50", "p90", "p99", "p999"):
        metrics[f"{name}_us"] = report["latency_us"][name]
    return metrics


def _record(case, report, metrics):
    reasons = list(report["invalid_reasons"])
    failed = sum(report.get("errors", {}).values())
    sent = report.get("sent", 0)
    if report.get("statuses") and (failed or report["ok"] < sent - failed):
        reasons.append(f"of {sent} requests {failed} failed and {sent - failed - report['ok']} were not 2xx")
    return {"case": case, "metrics": metrics, "valid": not reasons, "reasons": reasons, "raw": report}


# in the order of a round
ALL = {
    "http1-1k": http1_1k,
    "mtls-chain": mtls_chain,
    "tcp-relay": tcp_relay,
    "tls-handshakes": tls_handshakes,
    "routes-1000": routes_1000,
    "idle-connections": idle_connections,
    "workers": workers,
    "idle-process": IdleProcess(),
}

# scenarios that are also measured without any proxy, to be subtracted
WITH_DIRECT = {"http1-1k", "mtls-chain", "tcp-relay"}
