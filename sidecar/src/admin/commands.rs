//! The table of commands: path, whether it changes something, its parameters, its help, its page.

use super::{Query, Reply, pages};
use crate::control::process::Process;
use hyper::{Method, Request, StatusCode};
use std::{fmt::Write as _, rc::Rc};

struct Command {
    path: &'static str,
    /// Changes something: needs POST, as in Envoy.
    changes: bool,
    help: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    page: Handler,
}

enum Handler {
    Now(fn(&Rc<Process>, &Query) -> Reply),
    /// Made on a thread of its own.
    ConfigDump,
}

use Handler::Now;

const FORMAT: (&str, &str) = ("format", "One of (text, json)");
const STATS: &[(&str, &str)] = &[
    ("usedonly", "Only include stats that are not zero"),
    ("filter", "Regular expression for filtering stats by name"),
    ("format", "One of (text, json, prometheus)"),
    ("type", "One of (All, Counters, Gauges, Histograms, TextReadouts)"),
    ("histogram_buckets", "One of (summary, cumulative, disjoint, detailed)"),
    ("hidden", "One of (include, only, exclude)"),
];

const COMMANDS: &[Command] = &[
    Command { path: "/", changes: false, help: "Admin home page", parameters: &[], page: Now(home) },
    Command {
        path: "/certs",
        changes: false,
        help: "print certs on machine",
        parameters: &[],
        page: Now(pages::certs),
    },
    Command {
        path: "/clusters",
        changes: false,
        help: "upstream cluster status",
        parameters: &[("filter", "Regular expression for filtering clusters by name"), FORMAT],
        page: Now(pages::clusters),
    },
    Command {
        path: "/config_dump",
        changes: false,
        help: "dump current configs",
        parameters: &[
            ("resource", "The resource to dump, such as static_clusters"),
            ("mask", "Fields to show; with resource, of every element of it"),
            ("name_regex", "Only resources whose name matches"),
        ],
        page: Handler::ConfigDump,
    },
    Command {
        path: "/drain_listeners",
        changes: true,
        help: "drain listeners",
        parameters: &[
            ("graceful", "Go on accepting for the drain time before listeners stop"),
            ("skip_exit", "Ask clients to go and never stop the listeners"),
            ("inboundonly", "Only listeners with traffic_direction: INBOUND"),
        ],
        page: Now(pages::drain_listeners),
    },
    Command {
        path: "/healthcheck/fail",
        changes: true,
        help: "cause the server to fail health checks",
        parameters: &[],
        page: Now(|process, _| {
            process.lifecycle.fail_health_checks(true);
            Reply::ok()
        }),
    },
    Command {
        path: "/healthcheck/ok",
        changes: true,
        help: "cause the server to pass health checks",
        parameters: &[],
        page: Now(|process, _| {
            process.lifecycle.fail_health_checks(false);
            Reply::ok()
        }),
    },
    Command {
        path: "/help",
        changes: false,
        help: "print out list of admin commands",
        parameters: &[],
        page: Now(|_, _| Reply::text(help("admin commands are:\n"))),
    },
    Command {
        path: "/hot_restart_version",
        changes: false,
        help: "print the hot restart compatibility version",
        parameters: &[],
        page: Now(|_, _| Reply::text("disabled")),
    },
    Command {
        path: "/listeners",
        changes: false,
        help: "print listener info",
        parameters: &[FORMAT],
        page: Now(pages::listeners),
    },
    Command {
        path: "/logging",
        changes: true,
        help: "query/change logging levels",
        parameters: &[
            ("level", "Level of all loggers: one of (trace, debug, info, warning, error, critical, off)"),
            ("paths", "Levels of several loggers: name1:level1,name2:level2"),
        ],
        page: Now(pages::logging),
    },
    Command {
        path: "/memory",
        changes: false,
        help: "print current allocation/heap usage",
        parameters: &[],
        page: Now(pages::memory),
    },
    Command {
        path: "/quitquitquit",
        changes: true,
        help: "exit the server",
        parameters: &[],
        page: Now(pages::quit),
    },
    Command {
        path: "/ready",
        changes: false,
        help: "print server state, return 200 if LIVE, otherwise return 503",
        parameters: &[],
        page: Now(pages::ready),
    },
    Command {
        path: "/reopen_logs",
        changes: true,
        help: "reopen access logs and the log file",
        parameters: &[],
        page: Now(pages::reopen_logs),
    },
    Command {
        path: "/runtime",
        changes: false,
        help: "print runtime values; there are none here",
        parameters: &[],
        page: Now(|_, _| Reply::value(&serde_json::json!({ "layers": [], "entries": {} }))),
    },
    Command {
        path: "/server_info",
        changes: false,
        help: "print server version/status information",
        parameters: &[],
        page: Now(pages::server_info),
    },
    Command {
        path: "/stats",
        changes: false,
        help: "print server stats",
        parameters: STATS,
        page: Now(pages::stats),
    },
    Command {
        path: "/stats/prometheus",
        changes: false,
        help: "print server stats in prometheus format",
        parameters: &[STATS[0], STATS[1]],
        page: Now(pages::stats_prometheus),
    },
];

/// The answer to one request.
pub async fn answer<B>(process: &Rc<Process>, request: &Request<B>) -> Reply {
    let path = request.uri().path();
    let Some(command) = COMMANDS.iter().find(|command| command.path == path) else {
        return Reply::refused(StatusCode::NOT_FOUND, help("invalid path. admin commands are:\n"));
    };
    let method = request.method();
    if command.changes && method != Method::POST {
        return Reply::refused(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("Method {method} not allowed, POST required."),
        );
    }
    // Envoy takes POST everywhere; anything but reading and changing has no meaning
    if ![Method::GET, Method::HEAD, Method::POST].contains(method) {
        return Reply::refused(StatusCode::METHOD_NOT_ALLOWED, format!("Method {method} not allowed."));
    }
    let query = Query::parse(request.uri().query());
    match &command.page {
        Now(page) => page(process, &query),
        Handler::ConfigDump => pages::config_dump(process, &query).await,
    }
}

fn help(head: &str) -> String {
    let mut text = head.to_owned();
    for command in COMMANDS {
        let post = if command.changes { " (POST)" } else { "" };
        let _ = writeln!(text, "  {}{post}: {}", command.path, command.help);
        for (name, help) in command.parameters {
            let _ = writeln!(text, "      {name}: {help}");
        }
    }
    text
}

fn home(_: &Rc<Process>, _: &Query) -> Reply {
    let mut page =
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>Corelane Admin</title></head>\n<body>\n\
                    <table>\n<tr><th>Command</th><th>Description</th></tr>\n"
            .to_owned();
    for command in COMMANDS {
        let name = command.path.trim_start_matches('/');
        let cell = if command.changes {
            format!("<form action=\"{name}\" method=\"post\"><button>{name}</button></form>")
        } else {
            format!("<a href=\"{name}\">{}</a>", command.path)
        };
        let _ = writeln!(page, "<tr><td>{cell}</td><td>{}</td></tr>", command.help);
    }
    page.push_str("</table>\n</body>\n</html>\n");
    Reply::html(page)
}
