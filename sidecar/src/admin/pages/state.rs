//! What the server is, and the wishes to change it.

use super::super::{Query, Reply};
use crate::{
    control::{
        lifecycle::{Listeners, State, Stop, Wish},
        process::Process,
    },
    logging::{self, LEVEL_NAMES, Level},
};
use hyper::StatusCode;
use std::{fmt::Write as _, rc::Rc};

pub fn ready(process: &Rc<Process>, _: &Query) -> Reply {
    let state = process.lifecycle.state();
    let text = format!("{}\n", state.name());
    if state == State::Live {
        Reply::text(text)
    } else {
        Reply::refused(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

pub fn quit(process: &Rc<Process>, _: &Query) -> Reply {
    process.lifecycle.wish(Wish::Quit);
    Reply::ok()
}

pub fn drain_listeners(process: &Rc<Process>, query: &Query) -> Reply {
    let listeners = if query.has("inboundonly") { Listeners::Inbound } else { Listeners::All };
    let stop = match () {
        () if query.has("skip_exit") => Stop::Never,
        () if query.has("graceful") => Stop::Later,
        () => Stop::Now,
    };
    process.lifecycle.wish(Wish::Drain(listeners, stop));
    Reply::ok()
}

pub fn reopen_logs(process: &Rc<Process>, _: &Query) -> Reply {
    process.reopen_logs();
    Reply::ok()
}

pub fn logging(_: &Rc<Process>, query: &Query) -> Reply {
    match change_levels(query) {
        Ok(()) => Reply::text(active_loggers()),
        Err(reason) => Reply::bad_request(format!("error: {reason}\n\n{}{}", usage(), active_loggers())),
    }
}

/// Everything is checked before anything is changed.
fn change_levels(query: &Query) -> Result<(), String> {
    let mut changes = Vec::new();
    for (name, value) in query.pairs() {
        match name {
            "level" => changes.push((None, Level::parse(value)?)),
            "paths" => {
                for entry in value.split(',') {
                    let (logger, level) = entry
                        .split_once(':')
                        .ok_or_else(|| format!("{entry:?} is not of the form name:level"))?;
                    changes.push((Some(logger), Level::parse(level)?));
                }
            }
            logger => changes.push((Some(logger), Level::parse(value)?)),
        }
    }
    for (logger, _) in &changes {
        if let Some(logger) = logger {
            logging::known(logger)?;
        }
    }
    for (logger, level) in changes {
        match logger {
            None => logging::set_all(level),
            Some(logger) => logging::set(logger, level)?,
        }
    }
    Ok(())
}

fn usage() -> String {
    format!(
        "usage: /logging?<name>=<level> (change single level)\n\
         usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
         usage: /logging?level=<level> (change all levels)\n\
         levels: {}\n",
        LEVEL_NAMES.join(" ")
    )
}

fn active_loggers() -> String {
    let mut text = "active loggers:\n".to_owned();
    for (name, level) in logging::levels() {
        let _ = writeln!(text, "  {name}: {}", level.name());
    }
    text.push('\n');
    text
}
