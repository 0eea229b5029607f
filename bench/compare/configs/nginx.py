"""nginx's configuration."""

from pathlib import Path

_STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
# nginx counts a connection's requests and closes it at 1,000 unless told otherwise
_REQUESTS_MAX = 1_000_000_000


def can(job):
    """None, or why this nginx cannot do the job."""
    if job.kind == "tcp" and not _STREAM_MODULE.exists():
        return "the stream module (libnginx-mod-stream) is not installed"
    return None


def configuration(job, directory):
    """The whole file as text."""
    body = _stream(job) if job.kind == "tcp" else _http(job, directory)
    load = f"load_module {_STREAM_MODULE};\n" if job.kind == "tcp" else ""
    return f"""\
{load}daemon off;
worker_processes {job.workers};
worker_rlimit_nofile {job.connections_max * 2};
error_log stderr error;
pid {directory}/nginx.pid;
events {{
    worker_connections {job.connections_max + 512};
    use epoll;
}}
{body}"""


def _stream(job):
    return f"""\
stream {{
    access_log off;
    tcp_nodelay on;
    server {{
        listen 127.0.0.1:{job.listen} reuseport;
        proxy_pass 127.0.0.1:{job.upstream};
        proxy_timeout 10m;
    }}
}}
"""


def _http(job, directory):
    names = job.route_names() or ["payments"]
    servers = "".join(_upstream(job, name) for name in names)
    servers += "".join(_server(job, name, first=index == 0) for index, name in enumerate(names))
    temporary = "".join(
        f"    {kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
http {{
    access_log off;
    default_type text/plain;
    tcp_nodelay on;
    keepalive_timeout 10m;
    keepalive_requests {_REQUESTS_MAX};
    server_names_hash_max_size 8192;
    server_names_hash_bucket_size 64;
{temporary}    server {{
        listen 127.0.0.1:{job.admin};
        location / {{ stub_status; }}
    }}
{servers}}}
"""


def _upstream(job, name):
    # with thousands of upstreams a pool each of the usual size would be mostly reserved memory
    pool = 16 if job.routes else 256
    return f"""\
    upstream {name} {{
        server 127.0.0.1:{job.upstream};
        keepalive {pool};
        keepalive_requests {_REQUESTS_MAX};
        keepalive_timeout 10m;
    }}
"""


def _server(job, name, first):
    reuseport = " reuseport" if first else ""
    tls_in, speaks = "", " http2" if job.http2 else ""
    if job.tls_in:
        speaks = " ssl"
        tls_in = f"""\
        ssl_certificate {job.certs}/payments.pem;
        ssl_certificate_key {job.certs}/payments.key;
        ssl_client_certificate {job.certs}/ca.pem;
        ssl_verify_client on;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
        ssl_session_cache shared:hop:20m;
        ssl_session_tickets on;
"""
    tls_out = ""
    if job.tls_out:
        tls_out = f"""\
            proxy_ssl_certificate {job.certs}/orders.pem;
            proxy_ssl_certificate_key {job.certs}/orders.key;
            proxy_ssl_trusted_certificate {job.certs}/ca.pem;
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
            proxy_ssl_server_name on;
            proxy_ssl_protocols TLSv1.2 TLSv1.3;
            proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
            proxy_ssl_session_reuse on;
"""
    return f"""\
    server {{
        listen 127.0.0.1:{job.listen}{speaks}{reuseport};
        server_name {name};
{tls_in}        location / {{
            proxy_pass {'https' if job.tls_out else 'http'}://{name};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_buffering on;
            proxy_buffers 8 16k;
            proxy_max_temp_file_size 0;
{tls_out}        }}
    }}
"""
