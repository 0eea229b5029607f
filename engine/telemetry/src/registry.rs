//! Gives out blocks of slots to scopes, and sums them over the cores. Lives on the control thread; no core ever touches it.
//!
//! A scope that is asked for again gets the block it has, so counters survive a change of configuration. A scope that the
//! configuration no longer names is retired; once no snapshot holds its block any more it is reclaimed: zeroed on every shard, and
//! its slots given to the next scope of its family.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::block::{Block, Labels, Scope, ScopeRef};
use crate::codes::{CODE_SLOTS, CodeCount};
use crate::error::Error;
use crate::families::{FAMILIES, ProcessStat};
use crate::histogram::{BUCKETS, Histogram};
use crate::shard::{CHUNK_SLOTS, CHUNKS_MAX, Shard, Slots};
use crate::stat::{FamilyMeta, Kind, Stat, StatMeta};

/// Scopes in the table, retired ones included. What lies beyond shares its family's overflow scope.
pub const BLOCKS_MAX: usize = 262_144;

/// The label of the scope that counts for all scopes of its family that found the table full.
pub const OVERFLOW_LABEL: &str = "corelane_overflow";

#[derive(Debug, Default)]
struct FamilyBlocks {
    live: BTreeMap<Labels, u32>,
    /// With the generation in which the scope was retired.
    retired: BTreeMap<Labels, (u32, u64)>,
    free: Vec<u32>,
    overflow: Option<u32>,
}

/// All scopes and every shard.
#[derive(Debug)]
pub struct Registry {
    /// One per core; the last is the control thread's.
    shards: Vec<Arc<Slots>>,
    taken: Vec<bool>,
    families: Vec<FamilyBlocks>,
    next: u32,
    scopes: usize,
    scopes_max: usize,
    generation: u64,
    control: Shard,
    process: Block<ProcessStat>,
}

impl Registry {
    /// A registry for `cores` cores, with one more shard for the thread that owns it.
    pub fn new(cores: usize) -> Self {
        Self::with_scopes_max(cores, BLOCKS_MAX)
    }

    /// With a smaller table than `BLOCKS_MAX`.
    pub fn with_scopes_max(cores: usize, scopes_max: usize) -> Self {
        let control = Arc::new(Slots::new());
        let mut shards: Vec<_> = (0..cores).map(|_| Arc::new(Slots::new())).collect();
        shards.push(Arc::clone(&control));
        let mut registry = Self {
            shards,
            taken: vec![false; cores],
            families: FAMILIES.iter().map(|_| FamilyBlocks::default()).collect(),
            next: 0,
            scopes: 0,
            scopes_max: scopes_max.min(BLOCKS_MAX),
            generation: 0,
            control: Shard::new(control),
            process: Block::default(),
        };
        registry.process = registry.block(Scope::process());
        registry.control.gauge_set(registry.process, ProcessStat::StatsScopes, registry.scopes as u64);
        registry
    }

    /// The writer of core `core` (0-based). Each is given once: it is the only writer of its slots.
    pub fn shard(&mut self, core: usize) -> Result<Shard, Error> {
        let cores = self.taken.len();
        let taken = self.taken.get_mut(core).ok_or(Error::NoSuchCore { core, cores })?;
        if std::mem::replace(taken, true) {
            return Err(Error::ShardTaken { core });
        }
        Ok(Shard::new(Arc::clone(&self.shards[core])))
    }

    /// The control thread's own writer.
    pub fn control(&self) -> &Shard {
        &self.control
    }

    /// The process's own statistics.
    pub fn process(&self) -> Block<ProcessStat> {
        self.process
    }

    /// The block of `scope`, the same as last time where there was a last time. Its slots exist on every shard on return.
    ///
    /// With the table full, the family's overflow block, and `stats.scopes_overflowed` counts.
    pub fn block<S: Stat>(&mut self, scope: Scope<S>) -> Block<S> {
        let family = &mut self.families[S::META.family as usize];
        if let Some((base, _)) = family.retired.remove(&scope.labels) {
            family.live.insert(scope.labels, base);
            return Block::from_raw(base);
        }
        if let Some(base) = family.live.get(&scope.labels) {
            return Block::from_raw(*base);
        }
        match self.allocate(S::META) {
            Some(base) => {
                self.scopes += 1;
                self.families[S::META.family as usize].live.insert(scope.labels, base);
                self.control.gauge_set(self.process, ProcessStat::StatsScopes, self.scopes as u64);
                Block::from_raw(base)
            }
            None => {
                self.control.inc(self.process, ProcessStat::StatsScopesOverflowed);
                self.overflow()
            }
        }
    }

    /// The overflow block is outside `scopes_max`: there is at most one a family.
    fn overflow<S: Stat>(&mut self) -> Block<S> {
        let family = S::META.family as usize;
        if let Some(base) = self.families[family].overflow {
            return Block::from_raw(base);
        }
        let Some(base) = self.carve(S::META) else { return Block::default() };
        self.families[family].overflow = Some(base);
        let labels = Scope::<S>::new(&[OVERFLOW_LABEL]).labels;
        self.families[family].live.insert(labels, base);
        Block::from_raw(base)
    }

    fn allocate(&mut self, meta: &FamilyMeta) -> Option<u32> {
        if self.scopes >= self.scopes_max {
            return None;
        }
        match self.families[meta.family as usize].free.pop() {
            Some(base) => Some(base),
            None => self.carve(meta),
        }
    }

    /// New slots for one block. A block lies inside one chunk, so that a core looks up one chunk per increment.
    fn carve(&mut self, meta: &FamilyMeta) -> Option<u32> {
        let slots = u32::from(meta.slots);
        let mut base = self.next;
        if base / CHUNK_SLOTS != (base + slots - 1) / CHUNK_SLOTS {
            base = base.next_multiple_of(CHUNK_SLOTS);
        }
        if (base / CHUNK_SLOTS) as usize >= CHUNKS_MAX {
            return None;
        }
        self.next = base + slots;
        for shard in &self.shards {
            shard.allocate(base);
        }
        Some(base)
    }

    /// Retires every scope for which `live` answers no, and returns the generation to hand to `reclaim`.
    ///
    /// A retired scope is no longer shown. It keeps its block, and its counts come back with it if it is asked for again before it is
    /// reclaimed.
    pub fn retain(&mut self, mut live: impl FnMut(ScopeRef<'_>) -> bool) -> u64 {
        self.generation += 1;
        let generation = self.generation;
        let process = self.process.raw();
        for (meta, blocks) in FAMILIES.iter().zip(&mut self.families) {
            let FamilyBlocks { live: scopes, retired, overflow, .. } = blocks;
            let dead = scopes.extract_if(.., |labels, base| {
                *base != process && Some(*base) != *overflow && !live(ScopeRef::new(meta.family, labels))
            });
            retired.extend(dead.map(|(labels, base)| (labels, (base, generation))));
        }
        generation
    }

    /// Frees the blocks of scopes retired in `generation` or before, and returns how many.
    ///
    /// The caller promises that no core can count in them: every snapshot that held them has been dropped, on this thread or with a
    /// release that this thread has acquired (dropping the last `Arc` does). Zeroing beside a writer would lose the zero.
    pub fn reclaim(&mut self, generation: u64) -> usize {
        let mut freed = 0;
        for (meta, blocks) in FAMILIES.iter().zip(&mut self.families) {
            for (_, (base, _)) in blocks.retired.extract_if(.., |_, (_, retired)| *retired <= generation) {
                for shard in &self.shards {
                    shard.zero(base, u32::from(meta.slots));
                }
                blocks.free.push(base);
                freed += 1;
            }
        }
        self.scopes -= freed;
        self.control.gauge_set(self.process, ProcessStat::StatsScopes, self.scopes as u64);
        freed
    }

    /// A counter or gauge, summed over the shards.
    pub fn value<S: Stat>(&self, block: Block<S>, stat: S) -> u64 {
        let slot = block.raw().saturating_add(stat.offset());
        let sum = self.sum(slot);
        if stat.kind() == Kind::Gauge { gauge(sum) } else { sum }
    }

    /// What core `core` (0-based) has counted of it: its part of [`Registry::value`].
    pub fn of_core<S: Stat>(&self, core: usize, block: Block<S>, stat: S) -> u64 {
        self.shards.get(core).map_or(0, |shard| shard.get(block.raw().saturating_add(stat.offset())))
    }

    /// The scope that `block` was given out for, while it is not retired. Looks through its family.
    pub fn scope_of<S: Stat>(&self, block: Block<S>) -> Option<ScopeRef<'_>> {
        let mut scopes = self.families[S::META.family as usize].live.iter();
        let (labels, _) = scopes.find(|(_, base)| **base == block.raw())?;
        Some(ScopeRef::new(S::META.family, labels))
    }

    /// Responses of `stat` with exactly `code`; `None` where the code has no slot of its own.
    pub fn code<S: Stat>(&self, block: Block<S>, stat: S, code: u16) -> Option<u64> {
        let slot = crate::codes::code_slot(code)?;
        Some(self.sum(block.raw().saturating_add(stat.offset()).saturating_add(slot)))
    }

    /// A histogram, summed over the shards.
    pub fn histogram<S: Stat>(&self, block: Block<S>, stat: S) -> Histogram {
        self.histogram_at(block.raw().saturating_add(stat.offset()), stat.kind())
    }

    pub(crate) fn sum(&self, slot: u32) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.wrapping_add(shard.get(slot)))
    }

    pub(crate) fn scalar_at(&self, base: u32, stat: &StatMeta) -> u64 {
        let sum = self.sum(base + u32::from(stat.offset));
        if stat.kind == Kind::Gauge { gauge(sum) } else { sum }
    }

    pub(crate) fn histogram_at(&self, slot: u32, kind: Kind) -> Histogram {
        let mut buckets = [0; BUCKETS];
        for (i, bucket) in buckets.iter_mut().enumerate() {
            *bucket = self.sum(slot.saturating_add(1 + i as u32));
        }
        Histogram { kind, sum: self.sum(slot), buckets }
    }

    /// The response codes counted in the statistic that begins at `slot`, without those that are zero.
    pub(crate) fn codes_at(&self, slot: u32) -> impl Iterator<Item = CodeCount> + use<'_> {
        (0..CODE_SLOTS)
            .map(move |place| CodeCount::new(place, self.sum(slot + u32::from(place))))
            .filter(|code| code.count > 0)
    }

    pub(crate) fn live(&self, family: usize) -> &BTreeMap<Labels, u32> {
        &self.families[family].live
    }
}

/// A scrape may see one core's subtraction before another core's addition: what is below zero then is shown as zero.
fn gauge(sum: u64) -> u64 {
    if sum > i64::MAX as u64 { 0 } else { sum }
}
