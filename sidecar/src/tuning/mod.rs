//! The `corelane:` section: how cores run. Everything else is Envoy's configuration.
//!
//! A knob is one row of [`knobs::KNOBS`]: its name, its default, its reader, and the sentence that docs/tuning.md
//! has. Settings come in layers (default, file, `--tuning` file, flags); a later layer wins.

mod doc;
mod knobs;
mod layout;
mod parse;
mod section;

pub use doc::page;
pub use knobs::{KNOBS, Knob, Pin, Scope, Tuning};
pub use layout::{Misfit, lay_out};
pub use parse::CpuList;
pub use section::read;

use crate::findings::Finding;

/// Overrides at most; there can't be more cores.
pub const CORES_MAX: usize = 256;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Flag(&'static str),
    /// Index of the source, line, column.
    File {
        source: usize,
        line: u32,
        column: u32,
    },
}

/// One knob as somebody set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub knob: String,
    pub value: String,
    /// For one core only.
    pub core: Option<u32>,
    pub place: Place,
    /// As a finding names it: `corelane.cores[0].driver`.
    pub path: String,
}

/// What was set, in the order in which it takes effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(Vec<Setting>);

impl Settings {
    pub fn flag(&mut self, knob: &str, flag: &'static str, value: &str) {
        self.0.push(Setting {
            knob: knob.to_owned(),
            value: value.to_owned(),
            core: None,
            place: Place::Flag(flag),
            path: flag.to_owned(),
        });
    }

    pub fn push(&mut self, setting: Setting) {
        self.0.push(setting);
    }

    /// What is wrong with the layout, at the setting that asks for it.
    pub fn finding(&self, misfit: &Misfit) -> Finding {
        let asks = |setting: &&Setting| match misfit.core {
            Some(_) => setting.core == misfit.core,
            None => setting.knob == misfit.knob && setting.core.is_none(),
        };
        match self.0.iter().rev().find(asks) {
            Some(setting) => finding(setting, misfit.message.clone()),
            None => Finding::outside(format!("corelane.{}", misfit.knob), &misfit.message),
        }
    }

    /// `later` wins over what is here.
    pub fn extend(&mut self, later: Settings) {
        self.0.extend(later.0);
    }
}

/// The tuning that these settings make, and what is wrong with them. A setting that is wrong leaves the default.
pub fn resolve(settings: &Settings) -> (Tuning, Vec<Finding>) {
    let mut tuning = Tuning::default();
    let mut findings = Vec::new();
    let mut apply = |setting: &Setting| {
        if let Err(message) = apply(&mut tuning, setting) {
            findings.push(finding(setting, message));
        }
    };
    // for all cores first: an override starts from what holds for all, wherever it stands
    settings.0.iter().filter(|setting| setting.core.is_none()).for_each(&mut apply);
    settings.0.iter().filter(|setting| setting.core.is_some()).for_each(&mut apply);
    (tuning, findings)
}

fn apply(tuning: &mut Tuning, setting: &Setting) -> Result<(), String> {
    let Some(knob) = KNOBS.iter().find(|knob| knob.name == setting.knob) else {
        let names: Vec<&str> = KNOBS.iter().map(|knob| knob.name).collect();
        return Err(format!("unknown knob {:?}; one of {}", setting.knob, names.join(", ")));
    };
    let bad = |reason: String| format!("{reason}; expected {}", knob.values);
    match (&knob.scope, setting.core) {
        (Scope::Process(read), None) => read(tuning, &setting.value).map_err(bad),
        (Scope::Process(_), Some(core)) => {
            Err(format!("{} holds for the process; it can't be set for core {core}", knob.name))
        }
        (Scope::Core(read), None) => read(&mut tuning.core, &setting.value).map_err(bad),
        (Scope::Core(read), Some(core)) => {
            let mut own = tuning.for_core(core as usize).clone();
            read(&mut own, &setting.value).map_err(bad)?;
            tuning.cores.insert(core, own);
            Ok(())
        }
    }
}

fn finding(setting: &Setting, message: String) -> Finding {
    match setting.place {
        Place::Flag(flag) => Finding::outside(flag, message),
        Place::File { source, line, column } => {
            Finding::error(source, (line, column), &setting.path, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_runtime::DriverChoice;

    fn settings(list: &[(&str, &str, Option<u32>)]) -> Settings {
        let place = Place::File { source: 0, line: 1, column: 1 };
        let one = |(knob, value, core): &(&str, &str, Option<u32>)| Setting {
            knob: (*knob).to_owned(),
            value: (*value).to_owned(),
            core: *core,
            place: place.clone(),
            path: format!("corelane.{knob}"),
        };
        Settings(list.iter().map(one).collect())
    }

    #[test]
    fn a_later_layer_wins_and_a_core_wins_over_all() {
        let mut layers = settings(&[
            ("driver", "epoll", Some(1)),
            ("driver", "io_uring", None),
            ("busy_poll", "20us", None),
        ]);
        layers.flag("driver", "--driver", "auto");
        let (tuning, findings) = resolve(&layers);
        assert_eq!(findings, []);
        assert_eq!(tuning.for_core(0).driver, DriverChoice::Auto);
        assert_eq!(tuning.for_core(1).driver, DriverChoice::Epoll);
        assert_eq!(tuning.for_core(1).busy_poll_us, 20, "the rest is what holds for all");
    }

    #[test]
    fn every_bad_value_is_a_finding_that_says_what_is_expected() {
        for knob in KNOBS {
            let (tuning, findings) = resolve(&settings(&[(knob.name, "cheese", None)]));
            assert_eq!(findings.len(), 1, "{}", knob.name);
            assert_eq!(findings[0].path, format!("corelane.{}", knob.name));
            assert!(
                findings[0].message.ends_with(&format!("expected {}", knob.values)),
                "{}",
                findings[0].message
            );
            assert_eq!(format!("{tuning:?}"), format!("{:?}", Tuning::default()));
        }
    }

    #[test]
    fn an_unknown_knob_and_a_process_knob_on_a_core_are_refused() {
        let (_, findings) = resolve(&settings(&[("wrokers", "2", None), ("workers", "2", Some(0))]));
        assert!(
            findings[0].message.starts_with("unknown knob \"wrokers\"; one of "),
            "{}",
            findings[0].message
        );
        assert_eq!(findings[1].message, "workers holds for the process; it can't be set for core 0");
    }
}
