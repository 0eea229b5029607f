//! Writes access log lines that cores hand over. Files are opened once and again on USR1, so that a log can be rotated
//! by renaming it. A core never waits for a disk: what it can't hand over it drops and counts.

use crate::stats::Stats;
use corelane_snapshot::AccessLogSink;
use corelane_telemetry::{FilesystemStat, ProcessStat, access_log::LogReader};
use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    time::Duration,
};

/// Between two looks at the cores' lines while there are many: a core can hold a megabyte.
const BUSY: Duration = Duration::from_millis(10);

/// While there are some.
const SOME: Duration = Duration::from_millis(100);

/// While there are none; a core hands over a few lines after about as long.
const IDLE: Duration = Duration::from_secs(1);

/// Lines in one look after which the next comes soon.
const MANY_LINES: usize = 256;

enum Open {
    File(File),
    Stdout,
    Stderr,
    /// Could not be opened: its lines are lost, and counted.
    Closed,
}

/// The cores' ends and the files. Lives on the control thread.
pub struct LogFiles {
    sinks: Vec<AccessLogSink>,
    open: Vec<Open>,
    /// Of one look, by sink: written with one call each.
    pending: Vec<Vec<u8>>,
    readers: Vec<LogReader>,
    stats: Stats,
    /// Sinks whose failure was logged already.
    told: BTreeSet<usize>,
}

impl LogFiles {
    /// Opens every sink, by number.
    ///
    /// # Errors
    /// The files that can't be opened, each with the likely cause.
    pub fn open(sinks: &[AccessLogSink], stats: Stats) -> Result<LogFiles, Vec<String>> {
        let mut faults = Vec::new();
        let mut open = Vec::new();
        for sink in sinks {
            match open_sink(sink) {
                Ok(opened) => open.push(opened),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let pending = sinks.iter().map(|_| Vec::new()).collect();
        Ok(LogFiles {
            sinks: sinks.to_vec(),
            open,
            pending,
            readers: Vec::new(),
            stats,
            told: BTreeSet::new(),
        })
    }

    /// One reader a core.
    pub fn read_from(&mut self, readers: Vec<LogReader>) {
        self.readers = readers;
    }

    pub fn is_empty(&self) -> bool {
        self.sinks.is_empty()
    }

    /// Opens the files again by their names; one that can't be opened goes on with the old file.
    pub fn reopen(&mut self) {
        for (sink, open) in self.sinks.iter().zip(&mut self.open) {
            if !matches!(sink, AccessLogSink::File(_)) {
                continue;
            }
            match open_sink(sink) {
                Ok(opened) => *open = opened,
                Err(fault) => {
                    self.stats.inc(self.stats.files, FilesystemStat::ReopenFailed);
                    tracing::warn!("{fault}; going on with the file that is open");
                }
            }
        }
        self.told.clear();
    }

    /// Takes what the cores have handed over and writes it. Returns the number of lines.
    pub fn drain(&mut self) -> usize {
        let pending = &mut self.pending;
        let mut lines = 0;
        for reader in &self.readers {
            lines += reader.drain(|sink, line| {
                if let Some(pending) = pending.get_mut(usize::from(sink)) {
                    pending.extend_from_slice(line);
                }
            });
        }
        if lines > 0 {
            self.stats.add(self.stats.files, FilesystemStat::WriteBuffered, lines as u64);
            self.write();
        }
        lines
    }

    fn write(&mut self) {
        for (index, (open, pending)) in self.open.iter_mut().zip(&mut self.pending).enumerate() {
            if pending.is_empty() {
                continue;
            }
            let written = match open {
                Open::File(file) => file.write_all(pending),
                Open::Stdout => io::stdout().write_all(pending).and_then(|()| io::stdout().flush()),
                Open::Stderr => io::stderr().write_all(pending),
                Open::Closed => Ok(()),
            };
            let bytes = pending.len() as u64;
            pending.clear();
            // a burst should not stay in memory for ever
            pending.shrink_to(KEPT_BYTES);
            match written {
                Ok(()) => {
                    self.stats.inc(self.stats.files, FilesystemStat::WriteCompleted);
                    if matches!(open, Open::File(_)) {
                        // lines are written when the time for a look has come, never because a buffer is full
                        self.stats.inc(self.stats.files, FilesystemStat::FlushedByTimer);
                    }
                    self.stats.add(self.stats.process, ProcessStat::AccessLogBytesWritten, bytes);
                }
                Err(error) => {
                    self.stats.inc(self.stats.files, FilesystemStat::WriteFailed);
                    if self.told.insert(index) {
                        tracing::error!(
                            "{}: cannot write: {error}; lines are lost",
                            name_of(&self.sinks[index])
                        );
                    }
                    if error.kind() == io::ErrorKind::BrokenPipe {
                        *open = Open::Closed;
                    }
                }
            }
        }
    }
}

/// Bytes of a sink's buffer kept between two looks.
const KEPT_BYTES: usize = 256 << 10;

/// The wait until the next look, after one that found `lines`.
pub fn next_look(last: Duration, lines: usize) -> Duration {
    match lines {
        0 => (last * 2).min(IDLE),
        1..MANY_LINES => SOME,
        _ => BUSY,
    }
}

fn open_sink(sink: &AccessLogSink) -> Result<Open, String> {
    match sink {
        AccessLogSink::Stdout => Ok(Open::Stdout),
        AccessLogSink::Stderr => Ok(Open::Stderr),
        AccessLogSink::File(path) => open_file(path).map(Open::File),
    }
}

fn open_file(path: &Path) -> Result<File, String> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; does its directory exist?",
            io::ErrorKind::PermissionDenied => "; may the proxy's user write there?",
            _ => "",
        };
        format!("access log {}: cannot open: {error}{hint}", path.display())
    })
}

fn name_of(sink: &AccessLogSink) -> String {
    match sink {
        AccessLogSink::File(path) => format!("access log {}", path.display()),
        AccessLogSink::Stdout => "access log on stdout".to_owned(),
        AccessLogSink::Stderr => "access log on stderr".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_telemetry::access_log::log_ring;
    use std::fs;

    fn line(writer: &mut corelane_telemetry::access_log::LogWriter, sink: u16, text: &str) {
        assert!(writer.line(sink, |out| out.extend_from_slice(text.as_bytes())));
        writer.flush();
    }

    #[test]
    fn lines_of_all_cores_reach_their_files_in_order() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (a, b) = (dir.path().join("a.log"), dir.path().join("b.log"));
        let sinks = [AccessLogSink::File(a.clone()), AccessLogSink::File(b.clone())];
        let stats = Stats::new(2);
        let mut files = LogFiles::open(&sinks, stats.clone()).expect("open");
        let ((mut first, r1), (mut second, r2)) = (log_ring(), log_ring());
        files.read_from(vec![r1, r2]);
        line(&mut first, 0, "one\n");
        line(&mut first, 1, "two\n");
        line(&mut second, 0, "three\n");
        assert_eq!(files.drain(), 3);
        assert_eq!(files.drain(), 0);
        assert_eq!(fs::read_to_string(&a).expect("read"), "one\nthree\n");
        assert_eq!(fs::read_to_string(&b).expect("read"), "two\n");
        assert_eq!(stats.value(stats.files, FilesystemStat::WriteBuffered), 3);
        assert_eq!(stats.value(stats.files, FilesystemStat::FlushedByTimer), 2, "one write a file");
    }

    #[test]
    fn a_renamed_file_is_left_alone_after_reopening() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (log, old) = (dir.path().join("a.log"), dir.path().join("a.log.1"));
        let mut files = LogFiles::open(&[AccessLogSink::File(log.clone())], Stats::new(1)).expect("open");
        let (mut writer, reader) = log_ring();
        files.read_from(vec![reader]);
        line(&mut writer, 0, "before\n");
        files.drain();
        fs::rename(&log, &old).expect("rename");
        files.reopen();
        line(&mut writer, 0, "after\n");
        files.drain();
        assert_eq!(fs::read_to_string(&old).expect("read"), "before\n");
        assert_eq!(fs::read_to_string(&log).expect("read"), "after\n");
    }

    #[test]
    fn a_file_that_can_not_be_opened_is_named_with_the_cause() {
        let sink = AccessLogSink::File("/nowhere/dir/a.log".into());
        let Err(faults) = LogFiles::open(&[sink], Stats::new(1)) else { panic!("opened") };
        assert_eq!(faults.len(), 1);
        assert!(faults[0].ends_with("(os error 2); does its directory exist?"), "{}", faults[0]);
    }

    #[test]
    fn looks_come_soon_under_load_and_seldom_when_idle() {
        assert_eq!(next_look(IDLE, MANY_LINES), BUSY);
        assert_eq!(next_look(BUSY, 1), SOME);
        assert_eq!(next_look(IDLE, 1), SOME);
        let mut wait = BUSY;
        for _ in 0..20 {
            wait = next_look(wait, 0);
        }
        assert_eq!(wait, IDLE);
    }
}
