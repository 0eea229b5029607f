//! The sessions that a core may resume as a client.
//!
//! Each core keeps its own, so that no lock is taken; the scope lends them to rustls for one call. A session
//! belongs to one context generation and one endpoint: a changed trust bundle, identity or address finds none, and
//! a full handshake follows. It also dies with the certificate that its peer presented.
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::ServerName;

use crate::scope;

/// Peers that one core remembers; the one unused for longest is forgotten first.
pub const SESSION_PEERS_MAX: usize = 4096;
/// TLS 1.3 tickets kept for one peer, whatever a context asks for.
pub const SESSION_TICKETS_MAX: usize = 8;

#[derive(Clone, PartialEq, Eq, Hash)]
struct PeerKey {
    /// Unique to one build of one context.
    context: u64,
    endpoint: Option<SocketAddr>,
    name: ServerName<'static>,
}

#[derive(Default)]
struct PeerSessions {
    /// Dead once its context is.
    context: Weak<u64>,
    group: Option<NamedGroup>,
    tls12: Option<(Tls12ClientSessionValue, Expiry)>,
    /// Oldest first, each with its expiry.
    tls13: VecDeque<(Tls13ClientSessionValue, Expiry)>,
    last_use: u64,
}

/// Unix seconds after which the server's certificate path is invalid.
type Expiry = u64;

/// One core's client sessions.
#[derive(Default)]
pub(crate) struct SessionStore {
    peers: HashMap<PeerKey, PeerSessions>,
    uses: u64,
    newest_seen: u64,
}

impl fmt::Debug for SessionStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SessionStore").field("peers", &self.peers.len()).finish_non_exhaustive()
    }
}

impl SessionStore {
    /// Peers that are remembered.
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Forgets the sessions of contexts that are gone, when there are newer contexts than at the last look.
    fn forget_gone_contexts(&mut self) {
        let newest = NEWEST.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.newest_seen, newest) != newest {
            self.peers.retain(|_, sessions| sessions.context.strong_count() > 0);
        }
    }

    fn get(&mut self, key: &PeerKey) -> Option<&mut PeerSessions> {
        self.uses += 1;
        let sessions = self.peers.get_mut(key)?;
        sessions.last_use = self.uses;
        Some(sessions)
    }

    fn get_or_insert(&mut self, key: PeerKey, context: &Arc<u64>) -> &mut PeerSessions {
        self.uses += 1;
        if self.peers.len() >= SESSION_PEERS_MAX && !self.peers.contains_key(&key) {
            self.forget_half();
        }
        let sessions = self
            .peers
            .entry(key)
            .or_insert_with(|| PeerSessions { context: Arc::downgrade(context), ..PeerSessions::default() });
        sessions.last_use = self.uses;
        sessions
    }

    /// Forgetting many at once keeps the scan's cost per insertion constant.
    fn forget_half(&mut self) {
        let mut uses: Vec<u64> = self.peers.values().map(|sessions| sessions.last_use).collect();
        let middle = uses.len() / 2;
        let (_, &mut median, _) = uses.select_nth_unstable(middle);
        self.peers.retain(|_, sessions| sessions.last_use > median);
    }
}

/// One client context's door to whichever core's store is lent at the moment.
#[derive(Debug)]
pub(crate) struct ContextSessions {
    /// Unique to one build of one context.
    context: Arc<u64>,
    /// At most [`SESSION_TICKETS_MAX`]; the context's `max_session_keys`.
    tickets_max: usize,
    time: Arc<dyn TimeProvider>,
}

/// The number of the newest client context.
static NEWEST: AtomicU64 = AtomicU64::new(0);

impl ContextSessions {
    /// Every build of a context gets its own sessions: whatever changed, old ones are not resumed.
    pub(crate) fn new(tickets_max: usize, time: Arc<dyn TimeProvider>) -> Self {
        let context = Arc::new(NEWEST.fetch_add(1, Ordering::Relaxed) + 1);
        Self { context, tickets_max: tickets_max.min(SESSION_TICKETS_MAX), time }
    }

    fn with_store<R>(
        &self,
        name: &ServerName<'_>,
        visit: impl FnOnce(&mut SessionStore, PeerKey, Option<Expiry>) -> R,
    ) -> Option<R> {
        let (sessions, endpoint, expiry): (Rc<RefCell<SessionStore>>, _, _) = scope::with_facts(|facts| {
            // a peer that failed verification is met anew each time
            let expiry = facts.peer_not_after_s.filter(|_| !facts.peer_untrusted);
            Some((facts.sessions.clone()?, facts.endpoint, expiry))
        })??;
        let key = PeerKey { context: *self.context, endpoint, name: name.to_owned() };
        let mut store = sessions.borrow_mut();
        store.forget_gone_contexts();
        Some(visit(&mut store, key, expiry))
    }

    fn now_s(&self) -> u64 {
        // without a clock nothing is fresh
        self.time.current_time().map_or(u64::MAX, |now| now.as_secs())
    }
}

impl ClientSessionStore for ContextSessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.with_store(&name, |store, key, _| store.get_or_insert(key, &self.context).group = Some(group));
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.with_store(name, |store, key, _| store.get(&key).and_then(|sessions| sessions.group)).flatten()
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.with_store(&name, |store, key, expiry| {
            if let Some(expiry) = expiry.filter(|_| self.tickets_max > 0) {
                store.get_or_insert(key, &self.context).tls12 = Some((value, expiry));
            }
        });
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let now_s = self.now_s();
        let found = self.with_store(name, |store, key, _| {
            let sessions = store.get(&key)?;
            sessions.tls12.take_if(|(_, expiry)| *expiry < now_s);
            sessions.tls12.clone()
        });
        resumed(found.flatten())
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.with_store(name, |store, key, _| {
            if let Some(sessions) = store.get(&key) {
                sessions.tls12 = None;
            }
        });
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.with_store(&name, |store, key, expiry| {
            let Some(expiry) = expiry.filter(|_| self.tickets_max > 0) else { return };
            let tickets = &mut store.get_or_insert(key, &self.context).tls13;
            while tickets.len() >= self.tickets_max {
                tickets.pop_front();
            }
            tickets.push_back((value, expiry));
        });
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let now_s = self.now_s();
        let found = self.with_store(name, |store, key, _| {
            let tickets = &mut store.get(&key)?.tls13;
            tickets.retain(|(_, expiry)| *expiry >= now_s);
            tickets.pop_back()
        });
        resumed(found.flatten())
    }
}

/// A session that is offered carries its peer's expiry over to the tickets that the resumed session brings.
fn resumed<T>(found: Option<(T, Expiry)>) -> Option<T> {
    let (value, expiry) = found?;
    scope::with_facts(|facts| facts.peer_not_after_s = Some(expiry));
    Some(value)
}
