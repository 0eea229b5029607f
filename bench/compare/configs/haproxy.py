"""HAProxy's configuration."""

# the cheapest suite on a CPU with AES instructions; Envoy's library picks it by itself
_SUITE = "TLS_AES_128_GCM_SHA256"


def configuration(job, directory):
    """The whole file as text; helper files (certificate bundles, the route map) are written into `directory`."""
    sections = [_global(job), _defaults(job), _frontend(job, directory)]
    if job.routes:
        sections += [_backend(job, name, directory) for name in job.route_names()]
    else:
        sections.append(_backend(job, "payments", directory))
    return "\n".join(sections)


def _global(job):
    # strict-limits would refuse to start where the limit of open files is below twice maxconn
    return f"""\
global
    nbthread {job.workers}
    maxconn {job.connections_max}
    no strict-limits
    tune.ssl.cachesize 20000
    ssl-default-bind-ciphersuites {_SUITE}
    ssl-default-server-ciphersuites {_SUITE}
"""


def _defaults(job):
    http = "    option http-keep-alive\n    http-reuse always\n    timeout http-keep-alive 10m\n" if job.kind == "http" else ""
    return f"""\
defaults
    mode {job.kind}
{http}    timeout connect 10s
    timeout client 10m
    timeout server 10m

frontend metrics
    mode http
    bind 127.0.0.1:{job.admin}
    http-request use-service prometheus-exporter if {{ path /metrics }}
"""


def _frontend(job, directory):
    tls = ""
    if job.tls_in:
        tls = f" ssl crt {_bundle(job, 'payments', directory)} ca-file {job.certs}/ca.pem verify required alpn http/1.1"
    # by itself it would take HTTP/1.1 only where no TLS says otherwise
    protocol = " proto h2" if job.http2 else ""
    bind = f"    bind 127.0.0.1:{job.listen}{tls}{protocol}\n"
    if not job.routes:
        return f"frontend hop\n{bind}    default_backend payments\n"
    routes = directory / "routes.map"
    routes.write_text("".join(f"{name} {name}\n" for name in job.route_names()))
    return f"frontend hop\n{bind}    use_backend %[req.hdr(host),field(1,:),lower,map({routes})]\n"


def _backend(job, name, directory):
    tls = ""
    if job.tls_out:
        bundle = _bundle(job, "orders", directory)
        # verifyhost checks the certificate's name; HAProxy cannot match a SPIFFE URI here
        tls = f" ssl crt {bundle} ca-file {job.certs}/ca.pem verify required verifyhost localhost sni str(payments)"
    return f"""\
backend {name}
    server payments 127.0.0.1:{job.upstream} pool-max-conn -1 pool-purge-delay 10m{tls}
"""


def _bundle(job, name, directory):
    bundle = directory / f"{name}-bundle.pem"
    bundle.write_text((job.certs / f"{name}.pem").read_text() + (job.certs / f"{name}.key").read_text())
    return bundle
