//! What the callbacks of rustls must know about the connection that they are called for.
//!
//! rustls calls verifiers, ticket makers and session stores through shared trait objects that do not say which
//! connection is at work, and cloning a configuration for each connection would cost more than the knowledge is
//! worth. rustls is synchronous, so the session lends its facts to the thread for the time of one call into it.
//! Outside such a call there are no facts, and the callbacks then decide for the full handshake.
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::resumption::SessionStore;

/// Facts of one connection, kept by its session between calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Unix seconds after which the peer's certificate path is no longer valid; `None` while no certificate
    /// was verified, which also stands for a peer that presented none.
    pub peer_not_after_s: Option<u64>,
    /// The peer presented a certificate and it failed verification, which the context permits.
    pub peer_untrusted: bool,
    /// Whom a client's session is with; sessions of two endpoints behind one name never mix.
    pub endpoint: Option<SocketAddr>,
    /// The core's client sessions; `None` on servers.
    pub sessions: Option<Rc<RefCell<SessionStore>>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Facts>> = const { RefCell::new(None) };
}

/// Runs one call into rustls with the connection's facts lent to the thread.
pub(crate) fn within<R>(facts: &mut Facts, call: impl FnOnce() -> R) -> R {
    /// Takes the facts back even when the call unwinds.
    struct Loan<'a>(&'a mut Facts);
    impl Drop for Loan<'_> {
        fn drop(&mut self) {
            if let Some(lent) = CURRENT.with_borrow_mut(Option::take) {
                *self.0 = lent;
            }
        }
    }
    CURRENT.set(Some(std::mem::take(facts)));
    let _loan = Loan(facts);
    call()
}

/// Reads or changes the facts of the connection at work, if there is one.
pub(crate) fn with_facts<R>(visit: impl FnOnce(&mut Facts) -> R) -> Option<R> {
    CURRENT.with_borrow_mut(|current| current.as_mut().map(visit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_lent_for_one_call_and_survive_a_panic() {
        assert!(with_facts(|_| ()).is_none());
        let mut facts = Facts::default();
        within(&mut facts, || with_facts(|facts| facts.peer_not_after_s = Some(7)));
        assert_eq!(facts.peer_not_after_s, Some(7));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            within(&mut facts, || {
                with_facts(|facts| facts.peer_not_after_s = Some(8));
                panic!("inside")
            })
        }));
        assert!(caught.is_err());
        assert_eq!(facts.peer_not_after_s, Some(8));
        assert!(with_facts(|_| ()).is_none());
    }
}
