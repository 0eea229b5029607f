//! One check of one endpoint: its own connection, the cluster's transport socket, and a verdict within the check's
//! timeout. Reference: envoy.config.core.v3.HealthCheck.

use crate::{
    body::{H1Body, Piece, write_into},
    conn::Conn,
    connect,
    http2::{self, Chunk},
    poll_io::PollIo,
    race::{First, race},
    state::CoreState,
};
use corelane_http::{
    BodyFraming, Casing, Connection, Known, Limits, Method, Parsed, RequestHead, ResponseHead,
    parse_response, write_request,
};
use corelane_runtime::Buf;
use corelane_snapshot::{
    Cluster, Endpoint, HealthCheck, HealthCheckKind, StringMatcher, TransportSocket, template::Part,
};
use corelane_traffic::health::{CheckResult, judge_status, received_all};
use std::{pin::pin, rc::Rc};

/// Bytes of the answer to a check that are looked at, head and body apart; beyond it the connection is not kept.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// 1xx answers before the final one.
const INTERIM_MAX: u32 = 16;
/// As Envoy names itself to who is checked; services leave its requests out of their logs by it.
const USER_AGENT: &[u8] = b"Envoy/HC";

/// What a check found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probed {
    pub result: CheckResult,
    /// It failed for want of a connection or an answer, not by what was answered.
    pub is_network: bool,
    /// The answer's name of the service was compared.
    pub verified_cluster: bool,
}

impl Probed {
    fn of(result: CheckResult) -> Self {
        Probed { result, is_network: false, verified_cluster: false }
    }

    /// No connection, or one that ended before the answer.
    pub fn lost() -> Self {
        Probed { result: CheckResult::Fail, is_network: true, verified_cluster: false }
    }

    fn timed_out() -> Self {
        Probed { result: CheckResult::TimedOut, ..Self::lost() }
    }
}

/// Runs every check of the cluster against the endpoint; the first that fails is the verdict.
pub(super) async fn all(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Endpoint,
    kept: &mut Vec<Option<Rc<Conn>>>,
) -> Probed {
    let checks = &cluster.config.health_checks;
    kept.resize_with(checks.len(), || None);
    let mut verdict = Probed::of(CheckResult::Pass);
    for (check, kept) in checks.iter().zip(kept) {
        let reusable = kept.take().filter(|conn| check.reuse_connection && !conn.is_stale());
        let by = state.now() + check.timeout;
        let probing = one(state, cluster, endpoint, check, reusable);
        let probed = state.core.timers().timeout(by, probing).await;
        let (probed, conn) = probed.unwrap_or((Probed::timed_out(), None));
        *kept = conn.filter(|_| check.reuse_connection);
        verdict.verified_cluster |= probed.verified_cluster;
        if probed.result != CheckResult::Pass {
            return Probed { verified_cluster: verdict.verified_cluster, ..probed };
        }
    }
    verdict
}

/// The connection comes back where it can be used again.
async fn one(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Endpoint,
    check: &HealthCheck,
    reusable: Option<Rc<Conn>>,
) -> (Probed, Option<Rc<Conn>>) {
    let conn = match reusable {
        Some(conn) => conn,
        None => {
            let alpn = match check.kind {
                HealthCheckKind::Http { http2: true, .. } => Some([b"h2".to_vec()]),
                HealthCheckKind::Http { http2: false, .. } => Some([b"http/1.1".to_vec()]),
                HealthCheckKind::Tcp { .. } => None,
            };
            match connect::connect(state, cluster, endpoint, alpn.as_ref().map(<[_; 1]>::as_slice)).await {
                Ok(conn) => Rc::new(conn),
                Err(_) => return (Probed::lost(), None),
            }
        }
    };
    match &check.kind {
        HealthCheckKind::Tcp { send, receive } => tcp(state, conn, send, receive).await,
        HealthCheckKind::Http { service_name, http2, .. } => {
            let (mut request, mut head) = (state.request_head(), state.response_head());
            let answered = match write_head(state, cluster, endpoint, check, &mut request) {
                None => Err(Probed::of(CheckResult::FailAtOnce)),
                Some(()) if *http2 => {
                    self::http2(state, &conn, &request, &mut head).await.ok_or(Probed::lost())
                }
                Some(()) => http1(state, &conn, &request, check, &mut head).await.ok_or(Probed::lost()),
            };
            let probed =
                answered.map_or_else(|probed| probed, |_| judge(check, service_name.as_ref(), &head));
            state.keep_request_head(request);
            state.keep_response_head(head);
            (probed, answered.is_ok_and(|reusable| reusable).then_some(conn))
        }
    }
}

/// "an empty send payload" is a connect-only check.
async fn tcp(
    state: &CoreState,
    conn: Rc<Conn>,
    send: &[u8],
    receive: &[Box<[u8]>],
) -> (Probed, Option<Rc<Conn>>) {
    for piece in send.chunks(state.core.buffers().buffer_bytes()) {
        let mut buf = state.buffer();
        buf.extend_from_slice(piece);
        if conn.write_all(buf).await.0.is_err() {
            return (Probed::lost(), None);
        }
    }
    if receive.is_empty() {
        return (Probed::of(CheckResult::Pass), None);
    }
    let mut received: Vec<u8> = Vec::new();
    while received.len() < ANSWER_BYTES_MAX {
        match conn.read(state.buffer()).await {
            (Ok(n), buf) if n > 0 => received.extend_from_slice(buf.filled()),
            _ => return (Probed::lost(), None),
        }
        if received_all(receive, &received) {
            return (Probed::of(CheckResult::Pass), Some(conn));
        }
    }
    (Probed::of(CheckResult::Fail), None)
}

/// None: the configuration makes no request that can be written.
fn write_head(
    state: &CoreState,
    cluster: &Cluster,
    endpoint: &Endpoint,
    check: &HealthCheck,
    head: &mut RequestHead,
) -> Option<()> {
    let HealthCheckKind::Http { host, path, method, request_headers_add, request_headers_remove, .. } =
        &check.kind
    else {
        return None;
    };
    let authority = [host, &endpoint.hostname].into_iter().find(|name| !name.is_empty());
    head.set_method(method.as_bytes()).ok()?;
    head.set_authority(authority.map_or(cluster.config.name.as_bytes(), |name| name.as_bytes())).ok()?;
    head.set_path(path.as_bytes()).ok()?;
    let is_tls = matches!(
        cluster.config.transport.sockets.get(endpoint.transport as usize),
        Some(TransportSocket::Tls(_))
    );
    head.set_scheme(if is_tls { b"https" } else { b"http" }).ok()?;
    head.fields.set(Known::UserAgent, USER_AGENT);
    for name in request_headers_remove {
        head.fields.remove_name(name.as_bytes());
    }
    let mut value = state.scratch();
    for edit in request_headers_add {
        value.clear();
        // there is no request that an operator could speak of
        for part in &edit.value.parts {
            if let Part::Literal(text) = part {
                value.extend_from_slice(text);
            }
        }
        crate::headers::apply_edit(&mut head.fields, &edit.name, edit.append, &value);
    }
    state.keep_scratch(value);
    Some(())
}

/// A check has no content, and says so where a server could wait for some.
fn framing(head: &RequestHead) -> BodyFraming {
    match head.method() {
        Method::Get | Method::Head | Method::Options => BodyFraming::None,
        _ => BodyFraming::Length(0),
    }
}

fn written(state: &CoreState, head: &RequestHead, check: &HealthCheck) -> Option<Buf> {
    let connection = if check.reuse_connection { Connection::KeepAlive } else { Connection::Close };
    const LINES_ADDED_BYTES: usize = 512;
    let bytes = head.fields.total_bytes() + head.fields.count() * 4 + head.path().len() + LINES_ADDED_BYTES;
    let mut buf = match bytes > state.core.buffers().buffer_bytes() {
        true => state.core.buffers().take_sized(bytes),
        false => state.buffer(),
    };
    write_into(&mut buf, |sink| write_request(head, framing(head), connection, Casing::Lower, sink)).ok()?;
    Some(buf)
}

/// A whole answer: whether the connection can be used again. None: there was none.
async fn http1(
    state: &CoreState,
    conn: &Rc<Conn>,
    request: &RequestHead,
    check: &HealthCheck,
    head: &mut ResponseHead,
) -> Option<bool> {
    let method = request.method();
    conn.write_all(written(state, request, check)?).await.0.ok()?;
    let limits = Limits { head_bytes_max: ANSWER_BYTES_MAX, accept_http_10: true, ..Limits::default() };
    let mut input: Option<Buf> = None;
    let mut interim = 0;
    loop {
        if let Some(mut buf) = input.take().filter(|buf| !buf.is_empty()) {
            match parse_response(buf.filled(), &limits, method, head) {
                Ok(Parsed::Complete(meta)) => {
                    buf.advance(meta.consumed);
                    let rest = (!buf.is_empty()).then_some(buf);
                    if !meta.interim {
                        let reusable = meta.keep_alive && !meta.tunnel;
                        let body = H1Body::new(conn.clone(), meta.framing, rest, false);
                        return Some(reusable && drained(state, body).await);
                    }
                    interim += 1;
                    if interim > INTERIM_MAX {
                        return None;
                    }
                    input = rest;
                    continue;
                }
                Ok(Parsed::Partial) => input = Some(crate::upstream::roomier(state, buf)),
                Err(_) => return None,
            }
        }
        match conn.read(input.take().unwrap_or_else(|| state.buffer())).await {
            (Ok(n), buf) if n > 0 => input = Some(buf),
            _ => return None,
        }
    }
}

/// As [`http1`], on a connection that is not kept: what moves its frames ends with the check.
async fn http2(
    state: &Rc<CoreState>,
    conn: &Rc<Conn>,
    request: &RequestHead,
    head: &mut ResponseHead,
) -> Option<bool> {
    let request = http2::write_request(request, framing(request), "http").ok()?;
    let mut settings = h2::client::Builder::new();
    settings.enable_push(false).max_header_list_size(ANSWER_BYTES_MAX as u32);
    let io = PollIo::new(state, conn, None);
    let (sender, frames) = settings.handshake::<_, Chunk>(io).await.ok()?;
    let exchange = async {
        let (response, _) = sender.ready().await.ok()?.send_request(request, true).ok()?;
        let (parts, body) = response.await.ok()?.into_parts();
        http2::read_response(&parts, body.is_end_stream(), Limits::default().fields_max, head).ok()?;
        Some(false)
    };
    match race(pin!(exchange), pin!(frames)).await {
        First::Left(answered) => answered,
        First::Right(_) => None,
    }
}

/// Reads the body to its end. False: it has none in sight, or more than a body follows.
async fn drained(state: &CoreState, mut body: H1Body) -> bool {
    while body.received < ANSWER_BYTES_MAX as u64 {
        match body.next(state).await {
            Ok(Piece::End) => return body.input.is_none(),
            Ok(Piece::Data { last, .. }) if last => return body.input.is_none(),
            Ok(Piece::Data { .. }) => {}
            Err(_) => return false,
        }
    }
    false
}

fn judge(check: &HealthCheck, service: Option<&StringMatcher>, head: &ResponseHead) -> Probed {
    let result = judge_status(check, head.status);
    let Some(expected) = service.filter(|_| result == CheckResult::Pass) else { return Probed::of(result) };
    let named = head.fields.get_name(b"x-envoy-upstream-healthchecked-cluster");
    let is_it = named.is_some_and(|name| expected.matches(name));
    let result = if is_it { CheckResult::Pass } else { CheckResult::FailAtOnce };
    Probed { verified_cluster: true, ..Probed::of(result) }
}
