//! Notices that certificate files change. Directories are watched, not files: a secret volume is swapped by renaming a
//! symbolic link, and a tool that replaces a file gives it a new inode.

use super::{Rotation, Secrets};
use crate::stats::Stats;
use corelane_telemetry::ProcessStat;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::{cell::RefCell, collections::BTreeSet, path::PathBuf, rc::Rc, sync::Arc, time::Duration};
use tokio::{sync::Notify, time::sleep};

/// A certificate and its key are seldom replaced in the same instant.
const SETTLE: Duration = Duration::from_millis(100);

/// Files are looked at this often whatever the watch says: some file systems tell nothing.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);

/// And this often where a directory can't be watched.
const LOOK_UNWATCHED: Duration = Duration::from_secs(5);

/// The kernel's watch on directories; its events arrive on a thread of their own.
pub struct Watch {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
}

impl Watch {
    /// `changed` is notified at every event.
    ///
    /// # Errors
    /// No watch can be had: `fs.inotify.max_user_instances` is the usual cause.
    pub fn new(changed: Arc<Notify>) -> Result<Watch, String> {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                changed.notify_one();
            }
        });
        watcher.map(|watcher| Watch { watcher, watched: BTreeSet::new() }).map_err(|e| e.to_string())
    }

    /// Watches exactly these directories; those that can't be are given back with the reason.
    pub fn set(&mut self, directories: BTreeSet<PathBuf>) -> Vec<(PathBuf, String)> {
        for gone in self.watched.difference(&directories) {
            // a directory that was removed is no longer watched anyway
            let _ = self.watcher.unwatch(gone);
        }
        let mut failed = Vec::new();
        let mut watched = BTreeSet::new();
        for directory in directories {
            let watch = || self.watcher.watch(&directory, RecursiveMode::NonRecursive);
            if self.watched.contains(&directory) {
                watched.insert(directory);
                continue;
            }
            match { watch }() {
                Ok(()) => {
                    watched.insert(directory);
                }
                Err(error) => failed.push((directory, error.to_string())),
            }
        }
        self.watched = watched;
        failed
    }
}

/// Rotates contexts as their files change, for ever. Ends at once where no context has a file.
pub async fn follow_files(secrets: Rc<RefCell<Secrets>>, stats: Stats) {
    if secrets.borrow().directories().is_empty() {
        return;
    }
    let changed = Arc::new(Notify::new());
    let mut watch = match Watch::new(changed.clone()) {
        Ok(watch) => Some(watch),
        Err(reason) => {
            tracing::warn!(
                "certificate files: cannot watch ({reason}); looking every {} s instead",
                LOOK_UNWATCHED.as_secs()
            );
            None
        }
    };
    let mut told = BTreeSet::new();
    loop {
        let directories = secrets.borrow().directories();
        let failed = watch.as_mut().map(|watch| watch.set(directories));
        for (directory, reason) in failed.iter().flatten() {
            if told.insert(directory.clone()) {
                tracing::warn!(
                    "{}: cannot watch ({reason}); looking there every few seconds",
                    directory.display()
                );
            }
        }
        let unwatched = failed.is_none_or(|failed| !failed.is_empty());
        tokio::select! {
            () = changed.notified() => sleep(SETTLE).await,
            () = sleep(if unwatched { LOOK_UNWATCHED } else { LOOK_ANYWAY }) => {}
        }
        report(&secrets.borrow_mut().recheck(), &stats);
    }
}

fn report(rotation: &Rotation, stats: &Stats) {
    stats.add(stats.process, ProcessStat::CertificatesRotated, rotation.rotated.len() as u64);
    stats.add(stats.process, ProcessStat::CertificatesRefused, rotation.faults.len() as u64);
    for name in &rotation.rotated {
        tracing::info!("{name}: certificates rotated");
    }
    for fault in &rotation.faults {
        tracing::warn!("{}: keeping the certificates in use: {}", fault.resource, fault.message);
    }
}

#[test]
fn what_was_taken_and_what_was_not_is_counted() {
    let stats = Stats::new(1);
    let fault = super::Fault {
        resource: "listener `in`".to_owned(),
        message: "ca.pem: holds no certificate".to_owned(),
        part: None,
    };
    let rotation = Rotation { rotated: vec!["cluster `out`".to_owned()], faults: vec![fault.clone(), fault] };
    report(&rotation, &stats);
    let value = |stat| stats.value(stats.process, stat);
    assert_eq!((value(ProcessStat::CertificatesRotated), value(ProcessStat::CertificatesRefused)), (1, 2));
}
