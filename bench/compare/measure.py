"""Processes, ports and the load generator: everything that touches the machine."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

READY_SECONDS_MAX = 30
STOP_SECONDS_MAX = 3


class Failed(Exception):
    """A measurement that could not be made; the message says why."""


class Child:
    """A process that ends with its `with` block, by its own pid."""

    def __init__(self, argv, cpus, log, env=None):
        self.argv = [str(word) for word in argv]
        self.name = Path(self.argv[0]).name
        pinned = ["taskset", "-c", cpus, *self.argv] if cpus else self.argv
        self.log_path = Path(log)
        with open(log, "ab") as errors:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                pinned, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **(env or {})}
            )

    @property
    def pid(self):
        return self.process.pid

    def family(self):
        """This process and its descendants (nginx keeps a master and workers)."""
        pids = [self.pid]
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    pids += [int(child) for child in task.read_text().split()]
                except OSError:
                    pass
        return pids

    def line(self, seconds):
        """The next line that it prints, as JSON."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        text = self.process.stdout.readline() if ready else b""
        if not text:
            raise Failed(f"{self.name} printed nothing within {seconds} s: {self.tail()}")
        return json.loads(text)

    def tail(self):
        """The end of its error output."""
        return self.log_path.read_text(errors="replace").strip()[-1500:]

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.stdout.close()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def free_ports(count):
    """Ports that are free now; all are held together, so none is given twice."""
    sockets = [socket.socket() for _ in range(count)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def wait_until_ready(child, port, host=None):
    """Polls until `port` accepts, or with `host` answers 200 over plain HTTP. Returns seconds since the start."""
    request = f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode() if host else None
    deadline = time.monotonic() + READY_SECONDS_MAX
    last = "no connection"
    while time.monotonic() < deadline:
        if child.process.poll() is not None:
            raise Failed(f"{child.name} ended with status {child.process.returncode}: {child.tail()}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                if request is None:
                    return time.monotonic() - child.started
                connection.sendall(request)
                first = connection.recv(4096)
                if first.split(b" ")[1:2] == [b"200"]:
                    return time.monotonic() - child.started
                last = first[:60]
        except OSError as error:
            last = error
        time.sleep(0.002)
    raise Failed(f"{child.name} was not ready within {READY_SECONDS_MAX} s ({last}): {child.tail()}")


def resident_kib(pids):
    """Resident memory of one proxy: RSS for a single process. Pages that a master and its workers share count once:
    the private memory of all and the largest shared part."""
    private, shared = 0, 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        sizes = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
        private += sizes["Private_Clean"] + sizes["Private_Dirty"]
        shared = max(shared, sizes["Shared_Clean"] + sizes["Shared_Dirty"])
    return private + shared


def cpu_ns(pids):
    """CPU time of all threads of the processes, from the scheduler's account."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except OSError:
                pass
    return total


def pin(pid, cpu):
    """Moves a running process of ours, all threads, to one CPU."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {int(cpu)})


class Loadtest:
    """The generator's subcommands."""

    def __init__(self, binary, directory, scenarios):
        self.binary = Path(binary)
        self.directory = Path(directory)
        self.scenarios = Path(scenarios)
        if not self.binary.exists():
            raise Failed(f"{self.binary} is missing: cargo build --release -p corelane-loadtest")

    def certs(self, directory):
        self._call(["certs", "--out", directory], 30)

    def backend(self, cpu, *arguments):
        """Starts a backend and returns it with its port."""
        argv = [self.binary, "backend", "--seconds", "3600", *arguments]
        child = Child(argv, cpu, self.directory / "backend.log")
        try:
            child.port = int(child.line(10)["address"].rsplit(":", 1)[1])
        except BaseException:
            child.stop()
            raise
        return child

    def run(self, scenario, target, cpu, pids, seconds, rate=None, warmup=0.5):
        """One measured window; see RunReport for the answer's shape. With `cpu` None the kernel places the generator."""
        argv = ["run", "--scenario", self.scenarios / f"{scenario}.json", "--target", target]
        argv += ["--duration", f"{seconds}s", "--warmup", f"{warmup}s"]
        argv += ["--rate", rate, "--arrivals", "poisson"] if rate else ["--saturate"]
        # everything else may run on the same core here, so sends are late by a scheduler's slice now and then
        argv += ["--lateness-max", "5ms"]
        return self._measure(argv, cpu, pids, seconds + warmup)

    def handshakes(self, target, cpu, pids, seconds, resume, certs):
        argv = ["handshakes", "--target", target, "--duration", f"{seconds}s", "--warmup", "0.5s", "--sources", "8"]
        argv += self._identity(certs)
        argv += ["--resume"] if resume else []
        return self._measure(argv, cpu, pids, seconds + 0.5)

    @staticmethod
    def _identity(certs):
        return ["--tls-insecure", "--tls-cert", certs / "orders.pem", "--tls-key", certs / "orders.key"]

    def idle(self, target, cpu, connections, certs=None):
        """Starts the idle run, with mTLS where there are certificates, and returns it once all are established."""
        argv = [self.binary, "idle", "--target", target, "--connections", connections, "--duration", "120s"]
        argv += self._identity(certs) if certs else []
        child = Child(argv, cpu, self.directory / "idle.log")
        try:
            child.established = child.line(60)
        except BaseException:
            child.stop()
            raise
        return child

    def _measure(self, argv, cpu, pids, seconds):
        if cpu is not None:
            argv += ["--cpu", cpu]
        for pid in pids:
            argv += ["--watch-pid", pid]
        # opening and the last answers take their time too
        return json.loads(self._call(argv, seconds + 40))

    def _call(self, argv, seconds):
        argv = [str(self.binary), *map(str, argv)]
        try:
            done = subprocess.run(argv, capture_output=True, timeout=seconds, text=True, check=False)
        except subprocess.TimeoutExpired as expired:
            raise Failed(f"{' '.join(argv[1:])} did not end within {seconds} s") from expired
        # 1: measured, with failures or an invalid run, which the report tells
        if done.returncode not in (0, 1):
            raise Failed(f"{' '.join(argv[1:])}: {done.stderr.strip()}")
        return done.stdout


def stop_on_signals():
    """SIGTERM ends the benchmark as Ctrl-C does, through every `with` block."""

    def stop(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
