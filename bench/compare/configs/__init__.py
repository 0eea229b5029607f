"""One proxy's job, told to each proxy in its own language.

A `Job` says what a hop must do; `envoy.py`, `haproxy.py` and `nginx.py` write it as that peer's configuration.
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One hop: accept on `listen`, forward to `upstream`."""

    listen: int
    upstream: int
    admin: int
    # "http" or "tcp"
    kind: str = "http"
    # terminate mTLS on the listener, as the receiving sidecar does
    tls_in: bool = False
    # open mTLS to the upstream, as the calling sidecar does
    tls_out: bool = False
    # HTTP/2 by prior knowledge is what callers speak; without TLS only
    http2: bool = False
    # directory of ca.pem, orders.*, payments.*; only read with tls_in or tls_out
    certs: Path = field(default=Path("."))
    # 0: one route to one cluster. N: N virtual hosts svc-0..svc-N-1, each with its own cluster
    routes: int = 0
    workers: int = 1
    # connections the proxy must be able to hold at once
    connections_max: int = 4096

    def route_names(self):
        """Host names to route by."""
        return [f"svc-{i}" for i in range(self.routes)]
