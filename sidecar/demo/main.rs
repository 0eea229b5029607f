//! The first example: orders calls payments while one of the two replicas of payments resets connections.
//! `--once` ends after the two runs; on a terminal the second one stays up until Ctrl-C. Either says where the admin pages
//! are, and until when.

mod caller;
mod story;
#[path = "../tests/support/mod.rs"]
mod support;
mod topology;

use std::{
    io::IsTerminal,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};
use story::Story;

fn main() -> ExitCode {
    let stays = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let stays = stays && !std::env::args().any(|argument| argument == "--once");
    println!(
        "orders calls http://payments/charge; a sidecar on each side, mutual TLS between them, two replicas B1 and B2."
    );
    println!("policy  round robin; retry on connect-failure,5xx,reset; 2 retries, 250 ms a try;");
    println!("        5 failures in a row eject for 30 s; nothing else is set (sidecar/demo/orders.yaml)\n");
    let handshake =
        story::play("Run 1: B1 resets connections during the mTLS handshake", Story::DuringHandshake);
    let handshake_well = handshake.all_well;
    drop(handshake);
    let request = story::play("Run 2: B1 resets connections after the request is sent", Story::AfterRequest);
    let all_well = handshake_well && request.all_well;
    if stays {
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // without it the processes would be left behind
            signal_hook::flag::register(signal, ended.clone()).expect("a signal that can be caught");
        }
        request.stay(&|| ended.load(SeqCst));
    }
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
