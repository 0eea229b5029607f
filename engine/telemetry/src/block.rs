//! Names for a scope's statistics: the scope by its labels, and the dense block of slots that the registry gave it.

use std::marker::PhantomData;

use crate::families::Family;
use crate::stat::Stat;

/// Most labels a scope has (`grpc_method`: cluster, service, method).
pub const SCOPE_LABELS_MAX: usize = 3;

/// A scope's label values; unused ones are empty.
pub(crate) type Labels = [Box<str>; SCOPE_LABELS_MAX];

/// What a block counts for, such as the cluster `payments`. Built by the constructor of its family: `Scope::cluster("payments")`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope<S> {
    pub(crate) labels: Labels,
    family: PhantomData<S>,
}

impl<S: Stat> Scope<S> {
    pub(crate) fn new(labels: &[&str]) -> Self {
        let mut own = Labels::default();
        for (own, label) in own.iter_mut().zip(labels) {
            *own = (*label).into();
        }
        Self { labels: own, family: PhantomData }
    }
}

/// A scope as `Registry::retain` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopeRef<'a> {
    pub family: Family,
    labels: &'a Labels,
}

impl<'a> ScopeRef<'a> {
    pub(crate) fn new(family: Family, labels: &'a Labels) -> Self {
        Self { family, labels }
    }

    /// The label at `index`, as the scope's constructor took it; empty where there is none.
    pub fn label(&self, index: usize) -> &'a str {
        self.labels.get(index).map_or("", |label| label)
    }

    pub fn is<S: Stat>(&self, scope: &Scope<S>) -> bool {
        S::META.family == self.family && *self.labels == scope.labels
    }
}

/// The slots of one scope, the same on every core. Plain data: it is kept in the snapshot and copied with a request.
///
/// The default belongs to no scope; what is counted there is lost.
#[derive(Debug)]
pub struct Block<S> {
    base: u32,
    family: PhantomData<fn() -> S>,
}

impl<S> Clone for Block<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Block<S> {}

impl<S> PartialEq for Block<S> {
    fn eq(&self, other: &Self) -> bool {
        self.base == other.base
    }
}

impl<S> Eq for Block<S> {}

impl<S> Default for Block<S> {
    fn default() -> Self {
        Self::from_raw(u32::MAX)
    }
}

impl<S> Block<S> {
    /// The block whose number `raw` gave. Crates that may not depend on this one keep the number; `u32::MAX` is the default block.
    pub const fn from_raw(base: u32) -> Self {
        Self { base, family: PhantomData }
    }

    pub const fn raw(self) -> u32 {
        self.base
    }
}
