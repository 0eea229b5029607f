//! Where one core counts: an array of slots that only that core writes and that a scrape reads.
//!
//! A slot has one writer, so an increment is a load and a store, both relaxed, with neither a lock prefix nor a contended line. The
//! array grows by whole chunks that the registry allocates on every shard before it gives out a block in them, so a core never
//! allocates and never waits. Invariant: a `Shard` is not cloned and not shared, hence the single writer.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::block::Block;
use crate::codes;
use crate::histogram;
use crate::stat::{Kind, Stat};

/// Slots of a chunk: 128 KiB, which the allocator maps directly, so that pages nobody counted in take no memory.
pub(crate) const CHUNK_SLOTS: u32 = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 14;

/// Chunks of a shard: 8 million slots or 64 MiB, about 40,000 clusters with an endpoint each.
pub(crate) const CHUNKS_MAX: usize = 512;

/// The slots of one shard, as the registry sees them.
#[derive(Debug)]
pub(crate) struct Slots {
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self { chunks: (0..CHUNKS_MAX).map(|_| OnceLock::new()).collect() }
    }

    /// Allocates the chunk that holds `slot`; called by the registry before `slot` is in any block.
    pub(crate) fn allocate(&self, slot: u32) {
        if let Some(chunk) = self.chunks.get((slot >> CHUNK_BITS) as usize) {
            // not `AtomicU64::new` slot by slot: that would touch, and so take, every page
            chunk.get_or_init(|| bytemuck::zeroed_slice_box(CHUNK_SLOTS as usize));
        }
    }

    #[inline(always)]
    fn slot(&self, slot: u32) -> Option<&AtomicU64> {
        self.chunks.get((slot >> CHUNK_BITS) as usize)?.get()?.get((slot & (CHUNK_SLOTS - 1)) as usize)
    }

    #[inline(always)]
    pub(crate) fn get(&self, slot: u32) -> u64 {
        self.slot(slot).map_or(0, |slot| slot.load(Relaxed))
    }

    /// Only where no core can still hold the block: see `Registry::reclaim`.
    pub(crate) fn zero(&self, base: u32, slots: u32) {
        for slot in base..base + slots {
            if let Some(slot) = self.slot(slot) {
                slot.store(0, Relaxed);
            }
        }
    }

    #[inline(always)]
    fn add(&self, slot: u32, n: u64) {
        // a default block belongs to no chunk: counting there is lost, as its documentation says
        if let Some(slot) = self.slot(slot) {
            slot.store(slot.load(Relaxed).wrapping_add(n), Relaxed);
        }
    }
}

/// One core's writer. Moves to its core once and stays there.
#[derive(Debug)]
pub struct Shard {
    slots: Arc<Slots>,
    /// Keeps the shard on one thread at a time: `Send`, not `Sync`.
    single_writer: PhantomData<Cell<()>>,
}

impl Shard {
    pub(crate) fn new(slots: Arc<Slots>) -> Self {
        Self { slots, single_writer: PhantomData }
    }

    /// Adds to a counter.
    #[inline]
    pub fn add<S: Stat>(&self, block: Block<S>, stat: S, n: u64) {
        debug_assert!(matches!(stat.kind(), Kind::Counter | Kind::Occasional));
        self.slots.add(block.raw().saturating_add(stat.offset()), n);
    }

    /// Adds one to a counter.
    #[inline]
    pub fn inc<S: Stat>(&self, block: Block<S>, stat: S) {
        self.add(block, stat, 1);
    }

    /// Raises a gauge. Another core may lower it: the sum over the cores is what is shown.
    #[inline]
    pub fn gauge_add<S: Stat>(&self, block: Block<S>, stat: S, n: u64) {
        debug_assert_eq!(stat.kind(), Kind::Gauge);
        self.slots.add(block.raw().saturating_add(stat.offset()), n);
    }

    #[inline]
    pub fn gauge_sub<S: Stat>(&self, block: Block<S>, stat: S, n: u64) {
        debug_assert_eq!(stat.kind(), Kind::Gauge);
        self.slots.add(block.raw().saturating_add(stat.offset()), n.wrapping_neg());
    }

    /// Sets this shard's part of a gauge; for gauges that one writer alone sets (`membership_total`, `buffers_in_use`).
    #[inline]
    pub fn gauge_set<S: Stat>(&self, block: Block<S>, stat: S, value: u64) {
        debug_assert_eq!(stat.kind(), Kind::Gauge);
        if let Some(slot) = self.slots.slot(block.raw().saturating_add(stat.offset())) {
            slot.store(value, Relaxed);
        }
    }

    /// Counts a response by its class and its exact code. A code outside 100 to 599 is not counted.
    #[inline]
    pub fn code<S: Stat>(&self, block: Block<S>, stat: S, code: u16) {
        debug_assert_eq!(stat.kind(), Kind::Codes);
        let first = block.raw().saturating_add(stat.offset());
        if let Some(class) = codes::class_slot(code) {
            self.slots.add(first.saturating_add(class), 1);
        }
        if let Some(exact) = codes::code_slot(code) {
            self.slots.add(first.saturating_add(exact), 1);
        }
    }

    /// Records in a histogram: microseconds for `Kind::Millis` and `Kind::Micros`, the number itself for `Kind::Number`.
    #[inline]
    pub fn record<S: Stat>(&self, block: Block<S>, stat: S, value: u64) {
        debug_assert!(stat.kind().is_histogram());
        let first = block.raw().saturating_add(stat.offset());
        let (bucket, value) = histogram::place(stat.kind(), value);
        self.slots.add(first, value);
        self.slots.add(first.saturating_add(bucket), 1);
    }

    /// This shard's part of a counter or gauge.
    pub fn value<S: Stat>(&self, block: Block<S>, stat: S) -> u64 {
        self.slots.get(block.raw().saturating_add(stat.offset()))
    }
}
