//! The swap: one pointer, replaced whole. Cores see the new snapshot at their next request; a snapshot that
//! the last core lets go of travels back to the control thread, so that a core never frees one.

use crate::Snapshot;
use arc_swap::{ArcSwap, cache::Cache};
use std::{
    ops::Deref,
    rc::Rc,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

/// Snapshots on their way back; beyond it a core frees one itself.
pub const RETIRED_MAX: usize = 1024;

pub struct Publisher {
    current: Arc<ArcSwap<Snapshot>>,
    retire: SyncSender<Arc<Snapshot>>,
    retired: Receiver<Arc<Snapshot>>,
}

impl Publisher {
    pub fn new(first: Snapshot) -> Self {
        let (retire, retired) = sync_channel(RETIRED_MAX);
        Publisher { current: Arc::new(ArcSwap::from_pointee(first)), retire, retired }
    }

    pub fn publish(&self, next: Snapshot) {
        self.current.store(Arc::new(next));
        self.collect();
    }

    /// Frees what cores have let go of. Returns how many.
    pub fn collect(&self) -> usize {
        self.retired.try_iter().count()
    }

    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// To be moved to a core and opened there.
    pub fn seed(&self) -> SubscriptionSeed {
        SubscriptionSeed { current: self.current.clone(), retire: self.retire.clone() }
    }
}

#[derive(Clone)]
pub struct SubscriptionSeed {
    current: Arc<ArcSwap<Snapshot>>,
    retire: SyncSender<Arc<Snapshot>>,
}

impl SubscriptionSeed {
    pub fn open(self) -> Subscription {
        let mut cache = Cache::new(self.current);
        let pinned = Pinned::new(cache.load().clone(), &self.retire);
        Subscription { cache, pinned, retire: self.retire }
    }
}

/// One core's view.
pub struct Subscription {
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    pinned: Pinned,
    retire: SyncSender<Arc<Snapshot>>,
}

impl Subscription {
    /// The newest snapshot, held by a count that is this core's own. One atomic load where nothing changed.
    pub fn pin(&mut self) -> Pinned {
        let newest = self.cache.load();
        if !std::ptr::eq(Arc::as_ptr(newest), Arc::as_ptr(&self.pinned.0.snapshot)) {
            self.pinned = Pinned::new(newest.clone(), &self.retire);
        }
        self.pinned.clone()
    }
}

/// A snapshot that stays as long as this does. Cloning counts without an atomic.
#[derive(Clone)]
pub struct Pinned(Rc<Held>);

struct Held {
    snapshot: Arc<Snapshot>,
    retire: SyncSender<Arc<Snapshot>>,
}

impl Pinned {
    fn new(snapshot: Arc<Snapshot>, retire: &SyncSender<Arc<Snapshot>>) -> Self {
        Pinned(Rc::new(Held { snapshot, retire: retire.clone() }))
    }
}

impl Deref for Pinned {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0.snapshot
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // full: this core frees it, late but correct
        let _ = self.retire.try_send(self.snapshot.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: u64) -> Snapshot {
        Snapshot { version, ..Snapshot::default() }
    }

    #[test]
    fn a_request_keeps_the_snapshot_it_started_with() {
        let publisher = Publisher::new(version(1));
        let mut core = publisher.seed().open();
        let request = core.pin();
        publisher.publish(version(2));
        assert_eq!(request.version, 1);
        assert_eq!(core.pin().version, 2);
    }

    #[test]
    fn a_snapshot_that_cores_let_go_of_is_freed_by_the_control_thread() {
        let publisher = Publisher::new(version(1));
        let old = Arc::downgrade(&publisher.current());
        let mut core = publisher.seed().open();
        let tunnel = core.pin();
        publisher.publish(version(2));
        let _ = core.pin();
        assert_eq!(publisher.collect(), 0, "a request still holds it");
        drop(tunnel);
        assert!(old.upgrade().is_some(), "the core did not free it");
        assert_eq!(publisher.collect(), 1);
        assert!(old.upgrade().is_none());
    }
}
