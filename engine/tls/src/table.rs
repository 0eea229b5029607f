//! The contexts of the process by number, swapped while connections run.
//!
//! A snapshot names contexts by [`ContextId`]; certificates and bundles change under the number. A replacement
//! is seen by the next handshake; established connections keep what they were made with. Writers (the control
//! thread) take a lock; a core reads through its [`ContextView`] and takes none.
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Cache};

use crate::context::{
    ClientContext, ClientSpec, ContextEnvironment, ServerContext, ServerSpec, server_digest,
};
use crate::error::TlsError;

/// Contexts of one process, servers and clients together.
pub const CONTEXTS_MAX: usize = 65_536;

/// The number of a context in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextId(pub u32);

#[derive(Debug, Clone, Default)]
enum Slot {
    #[default]
    Empty,
    Server(Arc<ServerContext>),
    Client(Arc<ClientContext>),
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Slot>,
    /// Counts the replacements so far.
    generation: u64,
}

impl Slots {
    fn server(&self, id: ContextId) -> Option<&Arc<ServerContext>> {
        match self.slots.get(id.0 as usize)? {
            Slot::Server(context) => Some(context),
            _ => None,
        }
    }

    fn client(&self, id: ContextId) -> Option<&Arc<ClientContext>> {
        match self.slots.get(id.0 as usize)? {
            Slot::Client(context) => Some(context),
            _ => None,
        }
    }
}

/// All contexts of the process.
#[derive(Debug)]
pub struct ContextTable {
    slots: ArcSwap<Slots>,
    writer: Mutex<Writer>,
    environment: ContextEnvironment,
}

#[derive(Debug, Default)]
struct Writer {
    /// Bundle generations ever used; one is never given twice, so that a bundle that comes back is a new one.
    bundle_generations: u64,
    reserved: u32,
}

impl ContextTable {
    pub fn new(environment: ContextEnvironment) -> Arc<Self> {
        Arc::new(Self { slots: ArcSwap::default(), writer: Mutex::default(), environment })
    }

    /// The ticket keys and the clock of every context here.
    pub fn environment(&self) -> &ContextEnvironment {
        &self.environment
    }

    /// A number that no context has yet; it stays empty until set.
    ///
    /// # Errors
    /// [`TlsError::TooManyContexts`].
    pub fn reserve(&self) -> Result<ContextId, TlsError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let id = (writer.reserved as usize).max(self.slots.load().slots.len());
        if id >= CONTEXTS_MAX {
            return Err(TlsError::TooManyContexts { max: CONTEXTS_MAX });
        }
        writer.reserved = id as u32 + 1;
        Ok(ContextId(id as u32))
    }

    /// Builds a server context and puts it into its slot. Sessions go on being resumed unless something changed
    /// that decides which clients are accepted.
    ///
    /// # Errors
    /// Those of [`ServerContext::build`]; the slot then keeps what it had.
    pub fn set_server(&self, id: ContextId, spec: &ServerSpec) -> Result<Arc<ServerContext>, TlsError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = server_digest(spec);
        let generation = match self.slots.load().server(id) {
            Some(old) if old.bundle_digest() == digest => old.bundle_generation(),
            _ => {
                writer.bundle_generations += 1;
                writer.bundle_generations
            }
        };
        let context = Arc::new(ServerContext::build(spec, &self.environment, u64::from(id.0), generation)?);
        self.put(id, Slot::Server(context.clone()))?;
        Ok(context)
    }

    /// Builds a client context and puts it into its slot. Sessions start afresh.
    ///
    /// # Errors
    /// Those of [`ClientContext::build`]; the slot then keeps what it had.
    pub fn set_client(&self, id: ContextId, spec: &ClientSpec) -> Result<Arc<ClientContext>, TlsError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let context = Arc::new(ClientContext::build(spec, &self.environment)?);
        self.put(id, Slot::Client(context.clone()))?;
        Ok(context)
    }

    /// Empties a slot. Its number is not given out again.
    pub fn remove(&self, id: ContextId) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if (id.0 as usize) < self.slots.load().slots.len() {
            // cannot fail: the slot exists
            let _ = self.put(id, Slot::Empty);
        }
    }

    /// Copies the table with one slot changed; the caller holds the writer's lock.
    fn put(&self, id: ContextId, slot: Slot) -> Result<(), TlsError> {
        let index = id.0 as usize;
        if index >= CONTEXTS_MAX {
            return Err(TlsError::TooManyContexts { max: CONTEXTS_MAX });
        }
        let old = self.slots.load();
        let mut slots = old.slots.clone();
        if index >= slots.len() {
            slots.resize_with(index + 1, Slot::default);
        }
        slots[index] = slot;
        self.slots.store(Arc::new(Slots { slots, generation: old.generation + 1 }));
        Ok(())
    }

    /// The server context of a slot; for other threads than the cores'.
    pub fn server(&self, id: ContextId) -> Option<Arc<ServerContext>> {
        self.slots.load().server(id).cloned()
    }

    /// The client context of a slot; for other threads than the cores'.
    pub fn client(&self, id: ContextId) -> Option<Arc<ClientContext>> {
        self.slots.load().client(id).cloned()
    }

    /// Counts the replacements so far.
    pub fn generation(&self) -> u64 {
        self.slots.load().generation
    }

    /// One core's way to read the table.
    pub fn view(self: &Arc<Self>) -> ContextView {
        ContextView { cache: Cache::new(TableRef(self.clone())) }
    }
}

/// Lets the cache own its table.
#[derive(Debug, Clone)]
struct TableRef(Arc<ContextTable>);

impl std::ops::Deref for TableRef {
    type Target = ArcSwap<Slots>;
    fn deref(&self) -> &Self::Target {
        &self.0.slots
    }
}

/// One core's cached view: a load costs one relaxed read while nothing changes.
#[derive(Debug)]
pub struct ContextView {
    cache: Cache<TableRef, Arc<Slots>>,
}

impl ContextView {
    /// The server context of a slot as it is now.
    pub fn server(&mut self, id: ContextId) -> Option<&Arc<ServerContext>> {
        self.cache.load().server(id)
    }

    /// The client context of a slot as it is now.
    pub fn client(&mut self, id: ContextId) -> Option<&Arc<ClientContext>> {
        self.cache.load().client(id)
    }

    /// Counts the replacements so far.
    pub fn generation(&mut self) -> u64 {
        self.cache.load().generation
    }
}
