"""Envoy's bootstrap, minimal or with the filter chain that Istio gives a sidecar.

The istio-like file is the very file that Corelane runs: both read it from the same path.
"""

from textwrap import indent

_FILTER = "type.googleapis.com/envoy.extensions.filters.http"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def bootstrap(job, istio_like):
    """The whole file as text."""
    return f"""\
node: {{id: bench, cluster: bench}}
admin:
  address: {_address(job.admin)}
static_resources:
  listeners:
  - name: hop
    address: {_address(job.listen)}
    traffic_direction: {'INBOUND' if job.tls_in else 'OUTBOUND'}
{_listener_filters(job, istio_like)}    filter_chains:
    - filters:
{indent(_tcp_proxy() if job.kind == 'tcp' else _hcm(job, istio_like), '      ')}\
{_filter_chain_tls(job, istio_like)}
  clusters:
{indent(''.join(_cluster(job, name, istio_like) for name in job.route_names() or ['payments']), '  ')}"""


def _address(port):
    return f"{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}"


def _listener_filters(job, istio_like):
    if not istio_like or job.kind == "tcp":
        return ""
    name = "tls_inspector" if job.tls_in else "http_inspector"
    kind = "TlsInspector" if job.tls_in else "HttpInspector"
    return f"""\
    listener_filters:
    - name: envoy.filters.listener.{name}
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.listener.{name}.v3.{kind}
"""


def _tcp_proxy():
    return """\
- name: envoy.filters.network.tcp_proxy
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
    stat_prefix: hop
    cluster: payments
"""


def _hcm(job, istio_like):
    return f"""\
- name: envoy.filters.network.http_connection_manager
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
    stat_prefix: hop
{indent(_hcm_like_istio(job), '    ') if istio_like else ''}\
    route_config:
      name: hop
      virtual_hosts:
{indent(_virtual_hosts(job, istio_like), '      ')}\
    http_filters:
{indent(_http_filters(job, istio_like), '    ')}"""


def _hcm_like_istio(job):
    identity = """\
forward_client_cert_details: APPEND_FORWARD
set_current_client_cert_details: {subject: true, dns: true, uri: true}
""" if job.tls_in else ""
    return f"""\
codec_type: AUTO
use_remote_address: false
generate_request_id: true
stream_idle_timeout: 0s
normalize_path: true
path_with_escaped_slashes_action: KEEP_UNCHANGED
upgrade_configs:
- upgrade_type: websocket
request_id_extension:
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig
    use_request_id_for_trace_sampling: true
{identity}"""


def _virtual_hosts(job, istio_like):
    names = job.route_names()
    if not names:
        return _virtual_host("payments", "*", istio_like)
    return "".join(_virtual_host(name, name, istio_like) for name in names)


def _virtual_host(cluster, domain, istio_like):
    if not istio_like:
        return f"""\
- name: {cluster}
  domains: ["{domain}"]
  routes:
  - match: {{prefix: /}}
    route: {{cluster: {cluster}}}
"""
    domains = '["*"]' if domain == "*" else f'["{domain}", "{domain}:*", "{domain}.prod.svc.cluster.local"]'
    return f"""\
- name: {cluster}
  domains: {domains}
  include_request_attempt_count: true
  routes:
  - name: default
    match: {{prefix: /}}
    decorator: {{operation: "{cluster}:80/*"}}
    route:
      cluster: {cluster}
      timeout: 0s
      retry_policy:
        retry_on: connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes
        num_retries: 2
        retry_host_predicate:
        - name: envoy.retry_host_predicates.previous_hosts
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
        host_selection_retry_max_attempts: "5"
"""


def _http_filters(job, istio_like):
    filters = []
    if istio_like:
        if job.tls_in:
            filters.append(_rbac())
        filters.append(_filter("grpc_stats", "grpc_stats.v3.FilterConfig", "emit_filter_state: true\nstats_for_all_methods: false\n"))
        filters.append(_filter("fault", "fault.v3.HTTPFault"))
        filters.append(_filter("cors", "cors.v3.Cors"))
    filters.append(_filter("router", "router.v3.Router"))
    return "".join(filters)


def _filter(name, kind, fields=""):
    return f"""\
- name: envoy.filters.http.{name}
  typed_config:
    "@type": {_FILTER}.{kind}
{indent(fields, '    ')}"""


def _rbac():
    return _filter("rbac", "rbac.v3.RBAC", """\
rules:
  action: ALLOW
  policies:
    "ns[prod]-policy[payments]-rule[0]":
      permissions:
      - and_rules:
          rules:
          - any: true
      principals:
      - and_ids:
          ids:
          - authenticated:
              principal_name: {exact: "spiffe://cluster.local/ns/prod/sa/orders"}
""")


def _filter_chain_tls(job, istio_like):
    if not job.tls_in:
        return ""
    match = "      filter_chain_match: {transport_protocol: tls}\n" if istio_like else ""
    return f"""\
{match}      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": {_TLS}.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
{indent(_tls(job, 'payments', 'prefix: "spiffe://cluster.local/"'), '            ')}"""


def _tls(job, own, peer):
    return f"""\
alpn_protocols: [http/1.1]
tls_params: {{tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}}
tls_certificates:
- certificate_chain: {{filename: {job.certs}/{own}.pem}}
  private_key: {{filename: {job.certs}/{own}.key}}
validation_context:
  trusted_ca: {{filename: {job.certs}/ca.pem}}
  match_typed_subject_alt_names:
  - san_type: URI
    matcher: {{{peer}}}
"""


def _cluster(job, name, istio_like):
    text = f"""\
- name: {name}
  type: STATIC
  connect_timeout: 10s
  load_assignment:
    cluster_name: {name}
    endpoints:
    - lb_endpoints:
      - endpoint: {{address: {_address(job.upstream)}}}
"""
    if istio_like:
        text += """\
  lb_policy: LEAST_REQUEST
  circuit_breakers:
    thresholds:
    - max_connections: 4294967295
      max_pending_requests: 4294967295
      max_requests: 4294967295
      max_retries: 4294967295
  common_lb_config:
    healthy_panic_threshold: {}
  outlier_detection:
    consecutive_5xx: 5
    interval: 10s
    base_ejection_time: 30s
"""
    if job.tls_out:
        identity = 'exact: "spiffe://cluster.local/ns/prod/sa/payments"'
        text += f"""\
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      "@type": {_TLS}.UpstreamTlsContext
      sni: payments
      common_tls_context:
{indent(_tls(job, 'orders', identity), '        ')}"""
    return text
