//! All that a core owns; the only context handed around.

use crate::{
    drain::Drain,
    pick::Passing,
    pool::{Pool, StillWanted},
    shared::Shared,
    transport_failure::TransportFailure,
    upstream::Streams,
    worker::{CoreBlocks, WorkerEnv},
};
use corelane_http::{RequestHead, ResponseHead};
use corelane_runtime::{Buf, Core, Nanos};
use corelane_snapshot::{Cluster, Pinned, Subscription};
use corelane_telemetry::{
    Sampler, Shard,
    access_log::{self, LogWriter},
};
use corelane_tls::{ContextTable, TlsCore};
use corelane_traffic::{EvenDraws, Rng, balance::ClusterView};
use std::{
    cell::{Cell, Ref, RefCell},
    rc::Rc,
    sync::Arc,
};

/// Heads kept for reuse; a core with more requests at once than this allocates.
pub const HEADS_KEPT_MAX: usize = 1_024;
const SCRATCH_KEPT_MAX: usize = 64;
const SCRATCH_BYTES_MAX: usize = 16 << 10;

pub(crate) struct CoreState {
    pub core: Rc<Core>,
    pub shared: Arc<Shared>,
    pub shard: Shard,
    pub stats: CoreBlocks,
    pub tls: Arc<ContextTable>,
    pub tls_core: Rc<TlsCore>,
    pub pool: Pool,
    pub streams: Streams,
    pub drain: Drain,
    pub rng: RefCell<Rng>,
    /// For weights, where one percent of a thousand requests should be ten.
    even: RefCell<EvenDraws>,
    pub log: RefCell<LogWriter>,
    pub added_time: RefCell<Sampler>,
    subscription: RefCell<Subscription>,
    /// By cluster id: this core's balancing state, rebuilt when endpoints or health change.
    views: RefCell<Vec<Option<Box<ClusterView>>>>,
    // they travel boxed: a head is large, and moves between the pool and its request
    #[expect(clippy::vec_box)]
    requests: RefCell<Vec<Box<RequestHead>>>,
    #[expect(clippy::vec_box)]
    responses: RefCell<Vec<Box<ResponseHead>>>,
    connections: Cell<u64>,
    pub passing: RefCell<Passing>,
    scratch: RefCell<Vec<Vec<u8>>>,
    pub transport_failure: RefCell<TransportFailure>,
    /// The Date field of this second (RFC 9110 section 5.6.7), and which second that is.
    date: RefCell<(u64, Vec<u8>)>,
}

impl CoreState {
    pub fn new(core: Rc<Core>, env: WorkerEnv) -> Self {
        let WorkerEnv { subscription, tls, shard, stats, log, shared, seed } = env;
        CoreState {
            tls_core: TlsCore::new(&core),
            core,
            shared,
            shard,
            stats,
            tls,
            pool: Pool::default(),
            streams: Streams::default(),
            drain: Drain::default(),
            rng: RefCell::new(Rng::new(seed)),
            even: RefCell::new(EvenDraws::new(seed)),
            log: RefCell::new(log),
            added_time: RefCell::new(Sampler::default()),
            subscription: RefCell::new(subscription.open()),
            views: RefCell::default(),
            requests: RefCell::default(),
            responses: RefCell::default(),
            connections: Cell::new(0),
            passing: RefCell::default(),
            scratch: RefCell::default(),
            transport_failure: RefCell::default(),
            date: RefCell::default(),
        }
    }

    /// The time of this turn of the loop.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.core.clock().now()
    }

    /// The configuration as it is now; a request pins one at its start and keeps it.
    #[inline]
    pub fn pin(&self) -> Pinned {
        self.subscription.borrow_mut().pin()
    }

    /// Lets go of upstream connections that a new configuration has no use for.
    pub fn follow(&self) {
        let snapshot = self.pin();
        if snapshot.version != self.pool.version() {
            let mut wanted = StillWanted::by(&snapshot);
            self.pool.follow(&mut wanted);
            self.streams.follow(&mut wanted);
        }
    }

    #[inline]
    pub fn buffer(&self) -> Buf {
        self.core.buffers().take()
    }

    /// A buffer for so many bytes to come, as far as is known: a larger one where they are many.
    #[inline]
    pub fn buffer_for(&self, bytes: u64) -> Buf {
        let ordinary = self.core.buffers();
        let bulk = if bytes > ordinary.buffer_bytes() as u64 { self.core.bulk() } else { None };
        bulk.unwrap_or(ordinary).take()
    }

    #[inline]
    pub fn draw(&self) -> u64 {
        self.rng.borrow_mut().next_u64()
    }

    /// As [`CoreState::draw`], spread evenly over what it chooses among.
    pub fn draw_evenly(&self) -> u64 {
        self.even.borrow_mut().next_u64()
    }

    /// Runs `decide` over the cluster's balancing state.
    pub fn with_view<T>(&self, cluster: &Cluster, decide: impl FnOnce(&mut ClusterView, &mut Rng) -> T) -> T {
        let now_ns = self.now().as_u64();
        let rng = &mut self.rng.borrow_mut();
        let mut views = self.views.borrow_mut();
        let slot = cluster.config.id.0 as usize;
        if views.len() <= slot {
            views.resize_with(slot + 1, || None);
        }
        let view = views[slot].get_or_insert_with(|| Box::new(ClusterView::new(cluster, now_ns, rng)));
        decide(view, rng)
    }

    /// Unique in the process.
    pub fn connection_id(&self) -> u64 {
        let n = self.connections.get();
        self.connections.set(n + 1);
        ((self.core.id as u64) << 48) | n
    }

    pub fn request_head(&self) -> Box<RequestHead> {
        self.requests.borrow_mut().pop().unwrap_or_default()
    }

    pub fn response_head(&self) -> Box<ResponseHead> {
        self.responses.borrow_mut().pop().unwrap_or_default()
    }

    pub fn keep_request_head(&self, mut head: Box<RequestHead>) {
        let mut kept = self.requests.borrow_mut();
        if kept.len() < HEADS_KEPT_MAX {
            head.clear();
            kept.push(head);
        }
    }

    pub fn keep_response_head(&self, mut head: Box<ResponseHead>) {
        let mut kept = self.responses.borrow_mut();
        if kept.len() < HEADS_KEPT_MAX {
            head.clear();
            kept.push(head);
        }
    }

    /// An empty buffer for text, to be given back.
    pub fn scratch(&self) -> Vec<u8> {
        self.scratch.borrow_mut().pop().unwrap_or_default()
    }

    pub fn keep_scratch(&self, mut text: Vec<u8>) {
        let mut kept = self.scratch.borrow_mut();
        if kept.len() < SCRATCH_KEPT_MAX && text.capacity() <= SCRATCH_BYTES_MAX {
            text.clear();
            kept.push(text);
        }
    }

    /// The value of a Date field, written once a second.
    pub fn date(&self) -> Ref<'_, [u8]> {
        let unix_ns = self.core.clock().unix_nanos();
        let second = unix_ns / 1_000_000_000;
        if self.date.borrow().0 != second {
            let mut date = self.date.borrow_mut();
            date.0 = second;
            date.1.clear();
            access_log::write_strftime(&mut date.1, "%a, %d %b %Y %H:%M:%S GMT", unix_ns);
        }
        Ref::map(self.date.borrow(), |date| date.1.as_slice())
    }
}
