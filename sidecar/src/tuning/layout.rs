//! Cores on CPUs: how many there are, and which is pinned where.

use super::{Pin, Tuning};
use corelane_runtime::{CoreConfig, cpus::Cpus};

/// Why cores can't be laid out as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The knob that asks for it.
    pub knob: &'static str,
    /// The core whose own settings ask for it.
    pub core: Option<u32>,
    pub message: String,
}

impl Misfit {
    fn of(knob: &'static str, message: String) -> Misfit {
        Misfit { knob, core: None, message }
    }
}

/// One configuration a core, in the order of the cores.
///
/// # Errors
/// A named CPU is not one that this process may use, or an override is for a core that there is not.
pub fn lay_out(tuning: &Tuning, cpus: &Cpus) -> Result<Vec<CoreConfig>, Misfit> {
    let named = tuning.cpus.as_ref().map(|list| &list.0);
    if let Some(missing) = named.into_iter().flatten().find(|cpu| !cpus.usable.contains(cpu)) {
        let usable = super::CpuList(cpus.usable.clone());
        let message =
            format!("CPU {missing} is not one that this process may use ({usable}); is its CPU set limited?");
        return Err(Misfit::of("cpus", message));
    }
    let default = cpus.workers();
    let count = tuning.workers.unwrap_or_else(|| named.map_or(default.len(), Vec::len));
    if let Some(core) = tuning.cores.keys().find(|core| **core as usize >= count) {
        let are = if count == 1 { "is" } else { "are" };
        let message = format!("there is no core {core}; there {are} {count}, counted from 0");
        return Err(Misfit { knob: "cores", core: Some(*core), message });
    }
    let places = named.unwrap_or(&cpus.usable);
    let pinned = match tuning.pin {
        Pin::Never => false,
        Pin::Always => true,
        Pin::Auto => {
            named.is_some() || (count == default.len() && default.iter().all(|worker| worker.cpu.is_some()))
        }
    };
    if pinned && count > places.len() {
        let what = if named.is_some() { "named CPUs" } else { "CPUs that this process may use" };
        let message = format!(
            "{count} workers can't each have a CPU of their own among {} {what} ({}); \
             with `pin: never` they share them",
            places.len(),
            super::CpuList(places.clone())
        );
        let knob = if tuning.workers.is_some() { "workers" } else { "pin" };
        return Err(Misfit::of(knob, message));
    }
    let configure = |core: usize| {
        let mut config = tuning.for_core(core).clone();
        config.id = core;
        config.cpu = if pinned { places.get(core).copied() } else { None };
        config
    };
    Ok((0..count).map(configure).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::{Settings, resolve};

    fn laid_out(
        flags: &[(&str, &str)],
        usable: &[usize],
        online: usize,
    ) -> Result<Vec<Option<usize>>, String> {
        let mut settings = Settings::default();
        for (knob, value) in flags {
            settings.flag(knob, "--x", value);
        }
        let (tuning, findings) = resolve(&settings);
        assert_eq!(findings, []);
        let cpus = Cpus { usable: usable.to_vec(), online, quota: None };
        lay_out(&tuning, &cpus)
            .map(|cores| cores.iter().map(|core| core.cpu).collect())
            .map_err(|misfit| format!("{}: {}", misfit.knob, misfit.message))
    }

    #[test]
    fn named_cpus_get_a_pinned_core_each() {
        assert_eq!(laid_out(&[("cpus", "2-3")], &[0, 1, 2, 3], 4), Ok(vec![Some(2), Some(3)]));
        assert_eq!(laid_out(&[("cpus", "3,1"), ("workers", "1")], &[0, 1, 2, 3], 4), Ok(vec![Some(3)]));
        assert_eq!(
            laid_out(&[("cpus", "0"), ("pin", "never"), ("workers", "2")], &[0], 1),
            Ok(vec![None, None])
        );
    }

    #[test]
    fn cores_are_pinned_by_themselves_only_where_the_cpu_set_is_ours() {
        assert_eq!(laid_out(&[], &[0, 1], 2), Ok(vec![None, None]));
        assert_eq!(laid_out(&[], &[4, 5], 8), Ok(vec![Some(4), Some(5)]));
        assert_eq!(laid_out(&[("workers", "1")], &[4, 5], 8), Ok(vec![None]));
        assert_eq!(laid_out(&[("pin", "always")], &[0, 1], 2), Ok(vec![Some(0), Some(1)]));
    }

    #[test]
    fn impossible_wishes_are_refused() {
        let reason = laid_out(&[("cpus", "7")], &[0, 1], 8).expect_err("not ours");
        assert_eq!(reason, "cpus: CPU 7 is not one that this process may use (0-1); is its CPU set limited?");
        let reason = laid_out(&[("pin", "always"), ("workers", "3")], &[0, 1], 2).expect_err("too few");
        let expected = "workers: 3 workers can't each have a CPU of their own among 2 CPUs that this process may \
                        use (0-1); with `pin: never` they share them";
        assert_eq!(reason, expected);
        let reason = laid_out(&[("cpus", "1"), ("workers", "2")], &[0, 1], 2).expect_err("too few");
        assert!(reason.contains("among 1 named CPUs (1)"), "{reason}");
    }
}
