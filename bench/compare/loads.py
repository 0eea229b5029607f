"""The loads that flamegraphs and the profile of the release build are taken under: what runs, and through which hops."""

import contextlib

from scenarios import Bench

# name: scenario of loadtest/ (none: handshakes), the backend's arguments, and what the hop (or the two hops) must do
LOADS = {
    "http1-1k": ("http1-1k", [], "http"),
    "http1-64k": ("http1-64k", ["--body-bytes", "64k"], "http"),
    "http1-post-16k": ("http1-post-16k", [], "http"),
    "http1-steady": ("http1-steady", [], "http"),
    "http2-1k": ("http2-1k", [], "http"),
    "tcp-1k": ("tcp-1k", ["--mode", "echo"], "tcp"),
    "mtls-1k": ("http1-1k", [], "mtls"),
    "mtls-64k": ("http1-64k", ["--body-bytes", "64k"], "mtls"),
    "handshakes": (None, [], "handshakes"),
    "handshakes-resumed": (None, [], "handshakes"),
}


@contextlib.contextmanager
def started(name, peer, loadtest, directory):
    """Starts backend and hops of a load; gives the hops' process ids and `load(seconds, rate=None)`, which runs it."""
    scenario, backend_arguments, kind = LOADS[name]
    bench = Bench(loadtest, (0, 1), directory, directory / "certs", 1)
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(loadtest.backend("1", *backend_arguments))
        hops = _hops(bench, stack, peer, backend.port, kind)
        port = hops[-1].job.listen

        def load(seconds, rate=None):
            if kind == "handshakes":
                return loadtest.handshakes(
                    f"https://localhost:{port}/", 1, [], seconds, name.endswith("resumed"), bench.certs
                )
            scheme = "tcp" if kind == "tcp" else "http"
            return loadtest.run(scenario, f"{scheme}://127.0.0.1:{port}/", 1, [], seconds, rate=rate)

        yield [pid for hop in hops for pid in hop.pids()], load


def _hops(bench, stack, peer, upstream, kind):
    """The hop next to the backend first; load goes to the last."""
    if kind == "mtls":
        inner = stack.enter_context(bench.hop(peer, upstream, tls_in=True))
        return [inner, stack.enter_context(bench.hop(peer, inner.job.listen, tls_out=True))]
    if kind == "handshakes":
        return [stack.enter_context(bench.hop(peer, upstream, tls_in=True))]
    return [stack.enter_context(bench.hop(peer, upstream, kind=kind))]
