//! What one core owns for TLS: client sessions, verified peers, counts.
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use corelane_runtime::Core;

use crate::peer::PeerCache;
use crate::resumption::SessionStore;

/// Counts of one core since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TlsStats {
    /// Handshakes finished as a server.
    pub accepted: u64,
    /// Handshakes finished as a client.
    pub connected: u64,
    /// Of both, those that resumed a session.
    pub resumed: u64,
    /// Handshakes that failed, in either role.
    pub failed: u64,
    /// Bytes of application data that were copied other than by the cipher: on the in-place path only when a caller's
    /// buffer holds something already and has less room than the next record needs.
    pub payload_bytes_copied: u64,
    /// Bytes of records that were moved before they were opened, because the end of a buffer cut the record.
    pub ciphertext_bytes_moved: u64,
    pub records_opened: u64,
    pub records_sealed: u64,
}

/// One core's TLS state. `!Send`, shared by the core's connections.
pub struct TlsCore {
    core: Rc<Core>,
    pub(crate) sessions: Rc<RefCell<SessionStore>>,
    pub(crate) peers: PeerCache,
    stats: Cell<TlsStats>,
}

impl TlsCore {
    pub fn new(core: &Rc<Core>) -> Rc<Self> {
        Rc::new(Self {
            core: core.clone(),
            sessions: Rc::default(),
            peers: PeerCache::default(),
            stats: Cell::default(),
        })
    }

    pub fn core(&self) -> &Rc<Core> {
        &self.core
    }

    pub fn stats(&self) -> TlsStats {
        self.stats.get()
    }

    /// Servers whose sessions this core remembers as a client.
    pub fn session_peers(&self) -> usize {
        self.sessions.borrow().len()
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut TlsStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }
}

impl std::fmt::Debug for TlsCore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TlsCore").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
