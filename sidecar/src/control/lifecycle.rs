//! The state of the process as its surroundings see it.

use corelane_snapshot::TrafficDirection;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};
use tokio::sync::Notify;

/// envoy.admin.v3.ServerInfo.State.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Live,
    Draining,
    PreInitializing,
    Initializing,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Live => "LIVE",
            State::Draining => "DRAINING",
            State::PreInitializing => "PRE_INITIALIZING",
            State::Initializing => "INITIALIZING",
        }
    }

    /// As the gauge `server.state` has it.
    pub fn number(self) -> u64 {
        match self {
            State::Live => 0,
            State::Draining => 1,
            State::PreInitializing => 2,
            State::Initializing => 3,
        }
    }
}

/// Which listeners are meant; the second includes the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listeners {
    /// With `traffic_direction: INBOUND`.
    Inbound,
    All,
}

impl Listeners {
    pub fn includes(self, direction: TrafficDirection) -> bool {
        self == Listeners::All || direction == TrafficDirection::Inbound
    }
}

/// When listeners stop that drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    Never,
    /// When the drain time is over.
    Later,
    Now,
}

/// What the admin pages and signals can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Ask clients to go; the process goes on.
    Drain(Listeners, Stop),
    /// Drain, then end.
    Shutdown,
    /// End without waiting.
    Quit,
}

/// Lives on the control thread.
#[derive(Debug)]
pub struct Lifecycle {
    state: Cell<State>,
    failing: Cell<bool>,
    /// Not taken yet; as many as there are kinds at most.
    wishes: RefCell<BTreeSet<Wish>>,
    wished: Notify,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle {
            state: Cell::new(State::PreInitializing),
            failing: Cell::new(false),
            wishes: RefCell::default(),
            wished: Notify::new(),
        }
    }
}

impl Lifecycle {
    /// With health checks failed on purpose the server shows itself as draining, as Envoy does.
    pub fn state(&self) -> State {
        if self.failing.get() && self.state.get() == State::Live { State::Draining } else { self.state.get() }
    }

    pub fn enter(&self, state: State) {
        self.state.set(state);
    }

    /// `/healthcheck/fail` and `/healthcheck/ok`.
    pub fn fail_health_checks(&self, failing: bool) {
        self.failing.set(failing);
    }

    /// Asks for something.
    pub fn wish(&self, wish: Wish) {
        self.wishes.borrow_mut().insert(wish);
        self.wished.notify_one();
    }

    /// The strongest wish that nobody took yet.
    pub async fn wished(&self) -> Wish {
        loop {
            let wish = self.wishes.borrow_mut().pop_last();
            if let Some(wish) = wish {
                return wish;
            }
            self.wished.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_health_checks_show_as_draining() {
        let lifecycle = Lifecycle::default();
        lifecycle.fail_health_checks(true);
        assert_eq!(lifecycle.state(), State::PreInitializing);
        lifecycle.enter(State::Live);
        assert_eq!(lifecycle.state(), State::Draining);
        lifecycle.fail_health_checks(false);
        assert_eq!(lifecycle.state(), State::Live);
    }

    #[tokio::test]
    async fn the_strongest_wish_is_taken_once() {
        let lifecycle = Lifecycle::default();
        let (inbound, all) =
            (Wish::Drain(Listeners::Inbound, Stop::Now), Wish::Drain(Listeners::All, Stop::Later));
        for wish in [inbound, Wish::Shutdown, all, inbound] {
            lifecycle.wish(wish);
        }
        for wish in [Wish::Shutdown, all, inbound] {
            assert_eq!(lifecycle.wished().await, wish);
        }
        lifecycle.wish(Wish::Quit);
        assert_eq!(lifecycle.wished().await, Wish::Quit);
    }
}
