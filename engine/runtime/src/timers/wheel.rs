//! A hierarchical timer wheel whose entries may be moved or disarmed without touching it.
//!
//! Time is counted in ticks of 2^20 ns (1.05 ms). Level `n` has 64 slots of 64^n ticks. An entry is filed in the slot
//! of its instant on the coarsest level that tells it from now. When a slot comes due its entries are looked at: one
//! whose instant has come fires, one whose instant is later (it was filed coarsely, or moved) is filed again, one
//! that was disarmed is left out. So moving a deadline later or disarming it is one store.

use std::task::Waker;

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 6;
/// 64^6 ticks are 2.3 years; later instants are filed that far away and looked at then.
const SPAN_TICKS: u64 = 1 << (SLOT_BITS * LEVELS as u32 - 1);

/// The list of entries whose slot came due but that were not looked at yet.
const DUE: u16 = (LEVELS * SLOTS) as u16;
const UNFILED: u16 = u16::MAX;
const NONE: u32 = u32::MAX;
pub(super) const NEVER: u64 = u64::MAX;

struct Entry {
    /// The tick at which it fires; NEVER when disarmed.
    when: u64,
    /// The tick that the list it is in stands for; meaningless when unfiled.
    filed: u64,
    waker: Option<Waker>,
    next: u32,
    prev: u32,
    list: u16,
    fired: bool,
    live: bool,
}

pub(super) struct Wheel {
    entries: Vec<Entry>,
    /// Head of the list of free entries, linked by `next`.
    free: u32,
    live: usize,
    heads: [u32; LEVELS * SLOTS + 1],
    /// One bit per slot that is not empty.
    occupied: [u64; LEVELS],
    /// The tick up to which slots were looked at.
    elapsed: u64,
}

/// What arming changed.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Armed {
    /// The wheel already looks at the entry early enough.
    Lazily,
    /// The entry was filed: the wheel may have to look earlier than it meant to.
    Filed,
}

impl Wheel {
    pub(super) fn new(now_tick: u64) -> Wheel {
        Wheel {
            entries: Vec::new(),
            free: NONE,
            live: 0,
            heads: [NONE; LEVELS * SLOTS + 1],
            occupied: [0; LEVELS],
            elapsed: now_tick,
        }
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// After an idle time: filing relative to an old `elapsed` would cost looks that find nothing.
    pub(super) fn catch_up(&mut self, now_tick: u64) {
        if now_tick > self.elapsed && self.next_tick().is_none_or(|next| next > now_tick) {
            self.elapsed = now_tick;
        }
    }

    /// A new disarmed entry.
    pub(super) fn insert(&mut self) -> u32 {
        self.live += 1;
        let fresh = Entry {
            when: NEVER,
            filed: NEVER,
            waker: None,
            next: NONE,
            prev: NONE,
            list: UNFILED,
            fired: false,
            live: true,
        };
        if self.free == NONE {
            self.entries.push(fresh);
            return self.entries.len() as u32 - 1;
        }
        let id = self.free;
        self.free = self.at(id).next;
        *self.at(id) = fresh;
        id
    }

    /// Forgets an entry. Its waker is returned, because dropping it may run code that comes back here.
    pub(super) fn remove(&mut self, id: u32) -> Option<Waker> {
        self.unfile(id);
        let free = self.free;
        let entry = self.at(id);
        debug_assert!(entry.live);
        entry.live = false;
        entry.next = free;
        let waker = entry.waker.take();
        self.free = id;
        self.live -= 1;
        waker
    }

    pub(super) fn arm(&mut self, id: u32, when: u64) -> Armed {
        let entry = self.at(id);
        entry.fired = false;
        entry.when = when;
        if entry.list != UNFILED && entry.filed <= when {
            return Armed::Lazily;
        }
        self.unfile(id);
        self.file(id);
        Armed::Filed
    }

    /// The entry's instant has passed already: it counts as fired. Returns the waker to be woken.
    pub(super) fn expire(&mut self, id: u32) -> Option<Waker> {
        let entry = self.at(id);
        entry.when = NEVER;
        entry.fired = true;
        entry.waker.take()
    }

    pub(super) fn disarm(&mut self, id: u32) {
        let entry = self.at(id);
        entry.when = NEVER;
        entry.fired = false;
    }

    pub(super) fn fired(&self, id: u32) -> bool {
        self.entries[id as usize].fired
    }

    pub(super) fn armed(&self, id: u32) -> bool {
        let entry = &self.entries[id as usize];
        entry.fired || entry.when != NEVER
    }

    /// Registers whom to wake. The previous waker is returned to be dropped outside.
    pub(super) fn watch(&mut self, id: u32, waker: &Waker) -> Option<Waker> {
        let entry = self.at(id);
        match &entry.waker {
            Some(known) if known.will_wake(waker) => None,
            _ => entry.waker.replace(waker.clone()),
        }
    }

    /// Fires one entry that is due by `now_tick`. None when all have fired; Some(None) is one that nobody awaits.
    pub(super) fn fire_next(&mut self, now_tick: u64) -> Option<Option<Waker>> {
        loop {
            while self.heads[DUE as usize] != NONE {
                let id = self.heads[DUE as usize];
                self.unfile(id);
                let elapsed = self.elapsed;
                let entry = self.at(id);
                if entry.when == NEVER {
                    continue;
                }
                if entry.when > elapsed {
                    self.file(id);
                    continue;
                }
                entry.when = NEVER;
                entry.fired = true;
                return Some(entry.waker.take());
            }
            match self.next_slot() {
                Some((level, slot, start)) if start <= now_tick => {
                    self.elapsed = self.elapsed.max(start);
                    self.make_due(level, slot);
                }
                _ => {
                    self.elapsed = self.elapsed.max(now_tick);
                    return None;
                }
            }
        }
    }

    /// The tick at which the wheel must be looked at next.
    pub(super) fn next_tick(&self) -> Option<u64> {
        if self.heads[DUE as usize] != NONE {
            return Some(self.elapsed);
        }
        self.next_slot().map(|(_, _, start)| start)
    }

    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        // The first level with an occupied slot has the earliest: a finer level lies within one slot of a coarser.
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = SLOT_BITS * level as u32;
            let current = ((self.elapsed >> shift) as usize) % SLOTS;
            let ahead = self.occupied[level].rotate_right(current as u32).trailing_zeros() as usize;
            let slot = (current + ahead) % SLOTS;
            let rotation = self.elapsed & !((1u64 << (shift + SLOT_BITS)) - 1);
            let mut start = rotation + ((slot as u64) << shift);
            if start < self.elapsed && slot != current {
                start += 1 << (shift + SLOT_BITS);
            }
            return Some((level, slot, start));
        }
        None
    }

    fn make_due(&mut self, level: usize, slot: usize) {
        let list = level * SLOTS + slot;
        let head = std::mem::replace(&mut self.heads[list], NONE);
        self.occupied[level] &= !(1 << slot);
        // The due list is empty here: fire_next empties it before it asks for a slot.
        self.heads[DUE as usize] = head;
        let mut id = head;
        while id != NONE {
            let entry = self.at(id);
            entry.list = DUE;
            id = entry.next;
        }
    }

    fn file(&mut self, id: u32) {
        let elapsed = self.elapsed;
        let wanted = self.at(id).when;
        // A slot that was looked at already is not looked at again before a whole rotation.
        let when = wanted.clamp(elapsed + 1, elapsed + SPAN_TICKS);
        let level = (63 - ((elapsed ^ when) | (SLOTS as u64 - 1)).leading_zeros()) / SLOT_BITS;
        let level = (level as usize).min(LEVELS - 1);
        let shift = SLOT_BITS * level as u32;
        let slot = ((when >> shift) as usize) % SLOTS;
        let list = level * SLOTS + slot;
        let head = std::mem::replace(&mut self.heads[list], id);
        self.occupied[level] |= 1 << slot;
        if head != NONE {
            self.at(head).prev = id;
        }
        let entry = self.at(id);
        entry.filed = (when >> shift) << shift;
        entry.list = list as u16;
        entry.prev = NONE;
        entry.next = head;
    }

    fn unfile(&mut self, id: u32) {
        let entry = self.at(id);
        let (list, next, prev) = (entry.list, entry.next, entry.prev);
        if list == UNFILED {
            return;
        }
        entry.list = UNFILED;
        entry.next = NONE;
        entry.prev = NONE;
        if next != NONE {
            self.at(next).prev = prev;
        }
        if prev != NONE {
            self.at(prev).next = next;
            return;
        }
        self.heads[list as usize] = next;
        if next == NONE && list != DUE {
            self.occupied[list as usize / SLOTS] &= !(1 << (list as usize % SLOTS));
        }
    }

    #[inline]
    fn at(&mut self, id: u32) -> &mut Entry {
        &mut self.entries[id as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fires everything due by `now` and returns which of `ids` fired.
    fn run(wheel: &mut Wheel, now: u64, ids: &[u32]) -> Vec<u32> {
        while wheel.fire_next(now).is_some() {}
        ids.iter().copied().filter(|&id| wheel.fired(id)).collect()
    }

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn fires_at_its_tick_and_not_before() {
        for start in [0, 1, 63, 64, 4095, 4096, 123_456_789] {
            for after in [1, 2, 62, 63, 64, 65, 4095, 4096, 4097, 262_144, 300_000, 20_000_000] {
                let mut wheel = Wheel::new(start);
                let id = wheel.insert();
                wheel.arm(id, start + after);
                // Follow the wheel's own advice about when to look.
                while let Some(tick) = wheel.next_tick() {
                    assert!(tick <= start + after, "start {start} after {after}: asks for {tick}");
                    if tick == start + after {
                        break;
                    }
                    assert_eq!(run(&mut wheel, tick, &[id]), [], "start {start} after {after}");
                }
                assert_eq!(run(&mut wheel, start + after, &[id]), [id], "start {start} after {after}");
                assert_eq!(wheel.next_tick(), None);
            }
        }
    }

    #[test]
    fn moving_later_is_lazy_and_moving_earlier_is_not() {
        let mut wheel = Wheel::new(1000);
        let id = wheel.insert();
        assert_eq!(wheel.arm(id, 1010), Armed::Filed);
        assert_eq!(wheel.arm(id, 1500), Armed::Lazily);
        assert_eq!(wheel.next_tick(), Some(1010));
        assert_eq!(run(&mut wheel, 1010, &[id]), []);
        assert!(wheel.next_tick().is_some_and(|tick| tick > 1010 && tick <= 1500));
        assert_eq!(wheel.arm(id, 1020), Armed::Filed);
        assert_eq!(run(&mut wheel, 1020, &[id]), [id]);
    }

    #[test]
    fn a_disarmed_entry_costs_one_look_and_never_fires() {
        let mut wheel = Wheel::new(0);
        let id = wheel.insert();
        wheel.arm(id, 50);
        wheel.disarm(id);
        assert!(!wheel.armed(id));
        assert_eq!(run(&mut wheel, 50, &[id]), []);
        assert_eq!(wheel.next_tick(), None);
        wheel.arm(id, 60);
        assert_eq!(run(&mut wheel, 100, &[id]), [id]);
    }

    #[test]
    fn removed_entries_leave_every_list_whole() {
        let mut wheel = Wheel::new(7);
        let ids: Vec<_> = (0..9).map(|_| wheel.insert()).collect();
        for &id in &ids {
            wheel.arm(id, 20);
        }
        for id in [8, 4, 0] {
            wheel.remove(ids[id]);
        }
        let left: Vec<_> = ids.iter().copied().filter(|id| ![8, 4, 0].contains(id)).collect();
        assert_eq!(wheel.live(), 6);
        assert_eq!(run(&mut wheel, 20, &left), left);
        let reused = wheel.insert();
        assert!(ids.contains(&reused) && !wheel.armed(reused));
    }

    #[test]
    fn an_entry_removed_while_due_is_not_fired() {
        let mut wheel = Wheel::new(0);
        let ids: Vec<_> = (0..4).map(|_| wheel.insert()).collect();
        for &id in &ids {
            wheel.arm(id, 5);
        }
        assert!(wheel.fire_next(5).is_some());
        let waiting: Vec<_> = ids.iter().copied().filter(|&id| !wheel.fired(id)).collect();
        wheel.remove(waiting[0]);
        assert_eq!(run(&mut wheel, 5, &waiting[1..]), waiting[1..]);
    }

    #[test]
    fn instants_in_the_past_or_far_future_are_kept() {
        let mut wheel = Wheel::new(1000);
        let (past, far) = (wheel.insert(), wheel.insert());
        wheel.arm(past, 3);
        wheel.arm(far, u64::MAX - 1);
        assert_eq!(run(&mut wheel, 1001, &[past, far]), [past]);
        assert!(wheel.next_tick().is_some_and(|tick| tick > 1_000_000_000));
    }

    #[test]
    fn agrees_with_a_sorted_list_over_random_histories() {
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        for _ in 0..50 {
            let mut now = random(&mut seed) % 1_000_000;
            let mut wheel = Wheel::new(now);
            let ids: Vec<_> = (0..40).map(|_| wheel.insert()).collect();
            let mut model: Vec<Option<u64>> = vec![None; ids.len()];
            for _ in 0..400 {
                let at = (random(&mut seed) % ids.len() as u64) as usize;
                match random(&mut seed) % 4 {
                    0 => {
                        wheel.disarm(ids[at]);
                        model[at] = None;
                    }
                    1 => now += random(&mut seed) % 5000,
                    _ => {
                        let when = now + 1 + random(&mut seed) % (1 << (random(&mut seed) % 20));
                        wheel.arm(ids[at], when);
                        model[at] = Some(when);
                    }
                }
                while wheel.fire_next(now).is_some() {}
                for (id, when) in ids.iter().zip(&model) {
                    assert_eq!(wheel.fired(*id), when.is_some_and(|when| when <= now));
                }
            }
        }
    }
}
