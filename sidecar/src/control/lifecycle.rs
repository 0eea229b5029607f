//! The state of the process as its surroundings see it.

use std::cell::Cell;
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

/// What the admin pages and signals can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Ask clients to go, stop accepting when the drain time is over, go on otherwise.
    DrainGracefully,
    /// Stop accepting on inbound listeners; all else goes on.
    StopInbound,
    /// Stop accepting; the process goes on.
    StopListening,
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
    wish: Cell<Option<Wish>>,
    wished: Notify,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle {
            state: Cell::new(State::PreInitializing),
            failing: Cell::new(false),
            wish: Cell::new(None),
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

    /// Asks for something; a stronger wish replaces a weaker one that nobody took yet.
    pub fn wish(&self, wish: Wish) {
        if self.wish.get().is_none_or(|pending| pending < wish) {
            self.wish.set(Some(wish));
        }
        self.wished.notify_one();
    }

    /// The next wish.
    pub async fn wished(&self) -> Wish {
        loop {
            if let Some(wish) = self.wish.take() {
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
        lifecycle.wish(Wish::Shutdown);
        lifecycle.wish(Wish::DrainGracefully);
        assert_eq!(lifecycle.wished().await, Wish::Shutdown);
        lifecycle.wish(Wish::StopListening);
        assert_eq!(lifecycle.wished().await, Wish::StopListening);
    }
}
