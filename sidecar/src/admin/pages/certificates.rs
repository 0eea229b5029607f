//! /certs: envoy.admin.v3.Certificates.

use super::super::{Query, Reply};
use crate::control::{process::Process, secrets::Shown};
use serde_json::{Value, json};
use std::{
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

const DAY_S: u64 = 86_400;

pub fn certs(process: &Rc<Process>, _: &Query) -> Reply {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let mut certificates = Vec::new();
    process.secrets.borrow().show(|roots, chain| {
        let list =
            |shown: &[Shown<'_>]| shown.iter().map(|one| certificate(one, now_s)).collect::<Vec<Value>>();
        certificates.push(json!({ "ca_cert": list(roots), "cert_chain": list(chain) }));
    });
    Reply::value(&json!({ "certificates": certificates }))
}

fn certificate(shown: &Shown<'_>, now_s: u64) -> Value {
    let info = shown.info;
    let mut names: Vec<Value> = info.dns_sans.iter().map(|name| json!({ "dns": name })).collect();
    names.extend(info.uri_sans.iter().map(|name| json!({ "uri": name })));
    names.extend(info.ip_sans.iter().map(|address| json!({ "ip_address": address.to_string() })));
    json!({
        "path": shown.path,
        "serial_number": info.serial,
        "subject_alt_names": names,
        // a 64 bit number in JSON is text (proto3)
        "days_until_expiration": (info.not_after_s.saturating_sub(now_s) / DAY_S).to_string(),
        "valid_from": time(info.not_before_s),
        "expiration_time": time(info.not_after_s),
    })
}

fn time(unix_s: u64) -> String {
    let mut out = Vec::new();
    corelane_telemetry::access_log::write_strftime(
        &mut out,
        "%Y-%m-%dT%H:%M:%SZ",
        unix_s.saturating_mul(1_000_000_000),
    );
    String::from_utf8_lossy(&out).into_owned()
}
