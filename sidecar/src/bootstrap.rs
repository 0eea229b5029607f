//! From the texts of a configuration to a snapshot, with every finding of every pass: the texts, the tuning, the API's
//! fields, the resources, the certificates they name.

use crate::{
    control::secrets::Secrets,
    findings::{Finding, Findings, Severity, Source},
    flags::{Flags, Format},
    sources::Sources,
    stats::Stats,
    tuning::{self, Tuning},
    validate,
};
use corelane_runtime::{CoreConfig, cpus::Cpus};
use corelane_snapshot::{Builder, Snapshot};
use corelane_tls::{ContextEnvironment, ContextTable};
use corelane_xds::{
    Document, Schema,
    translate::{self, Translation},
    tree::{Node, Spanned},
};
use std::sync::Arc;

/// What was read, whatever was found.
pub struct Loaded {
    pub sources: Vec<Source>,
    pub findings: Findings,
    /// None where there are errors.
    pub configuration: Option<Loadable>,
}

/// Everything that a process starts from.
pub struct Loadable {
    pub tuning: Tuning,
    pub cores: Vec<CoreConfig>,
    pub translation: Translation,
    /// The bootstrap message, encoded.
    pub bootstrap: Arc<[u8]>,
    pub stats: Stats,
    pub builder: Builder,
    pub snapshot: Snapshot,
    pub secrets: Secrets,
}

/// Reads and checks all that the flags name. It binds nothing and starts nothing.
///
/// # Errors
/// The process itself can't do it: no randomness, no CPU set.
pub fn load(flags: &Flags) -> Result<Loaded, String> {
    let cpus = Cpus::read().map_err(|e| e.to_string())?;
    let mut texts = Sources::read(flags);
    let mut findings = Findings { list: std::mem::take(&mut texts.findings) };
    let (tuning, faults) = tuning::resolve(&texts.settings);
    findings.list.extend(faults);
    let cores = tuning::lay_out(&tuning, &cpus).unwrap_or_else(|fault| {
        findings.push(texts.settings.finding(&fault));
        Vec::new()
    });

    let stats = Stats::new(cores.len());
    let mut builder = Builder::new(stats.allocator());
    let (translation, bootstrap) = translate_texts(&mut texts, &mut builder, &mut findings)?;

    let table = ContextTable::new(ContextEnvironment::new().map_err(|e| e.to_string())?);
    let mut secrets = Secrets::new(table);
    let snapshot = match builder.build() {
        Ok(snapshot) if findings.errors() == 0 => snapshot,
        Ok(_) => Snapshot::default(),
        Err(error) => {
            findings.push(Finding::outside("", error.to_string()));
            Snapshot::default()
        }
    };
    for fault in secrets.follow(&snapshot) {
        findings.list.extend(validate::findings_of(&fault, &texts.list));
    }
    findings.sort();
    let is_sound = findings.errors() == 0;
    let configuration = is_sound.then(|| Loadable {
        tuning,
        cores,
        translation,
        bootstrap,
        stats,
        builder,
        snapshot,
        secrets,
    });
    Ok(Loaded { sources: texts.list, findings, configuration })
}

/// Envoy's part into the builder. What only reading needs is many times what it leaves behind, so it is let go of as soon
/// as it can be: the snapshot fits into the room that it leaves.
fn translate_texts(
    texts: &mut Sources,
    builder: &mut Builder,
    findings: &mut Findings,
) -> Result<(Translation, Arc<[u8]>), String> {
    let tree = std::mem::replace(&mut texts.bootstrap, Spanned::new(Node::Null, 1, 1));
    let schema = Schema::load().map_err(|e| e.to_string())?;
    let document = Document::read(&schema, &tree).map_err(|e| e.to_string())?;
    drop(schema);
    // a text that is no YAML left nothing to translate, and that is said already
    let is_missing = tree.value == Node::Null && findings.errors() > 0;
    let mut translation = translate::bootstrap(&document, builder);
    let found = std::mem::take(&mut translation.findings);
    if !is_missing {
        findings.list.extend(found.into_iter().map(|found| locate(texts, found)));
    }
    Ok((translation, document.encoded.into()))
}

fn locate(texts: &Sources, found: corelane_xds::Finding) -> Finding {
    let (source, line) = match found.line {
        Some(line) if !texts.list.is_empty() => {
            let (source, line) = texts.locate(line);
            (Some(source), line)
        }
        _ => (None, 0),
    };
    Finding {
        severity: match found.severity {
            corelane_xds::Severity::Error => Severity::Error,
            corelane_xds::Severity::Warning => Severity::Warning,
        },
        source,
        line,
        column: found.column.unwrap_or(1),
        path: found.path,
        message: found.message,
    }
}

/// What `--mode validate` prints, and whether the configuration may be used.
pub fn verdict(flags: &Flags, loaded: &Loaded) -> (String, bool) {
    let is_sound = loaded.findings.errors() == 0;
    if flags.format == Format::Json {
        return (loaded.findings.json(&loaded.sources), is_sound);
    }
    let mut text = loaded.findings.text(&loaded.sources);
    // what could not be read is no source, and still what was asked about
    let file = flags.config_path.as_ref().map(|path| path.display().to_string());
    let name = file.as_deref().unwrap_or("--config-yaml");
    if is_sound {
        // Envoy's words
        text.push_str(&format!("configuration '{name}' OK\n"));
    } else {
        let errors = loaded.findings.errors();
        let s = if errors == 1 { "" } else { "s" };
        text.push_str(&format!("configuration '{name}' has {errors} error{s}\n"));
    }
    (text, is_sound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn loaded(text: &str, more: &[&str]) -> (Flags, Loaded) {
        let args = [&["corelane-sidecar", "--config-yaml", text], more].concat();
        let flags = Flags::parse_from(args);
        let loaded = load(&flags).expect("load");
        (flags, loaded)
    }

    const SOUND: &str = "\
static_resources:
  clusters:
  - name: app
    connect_timeout: 1s
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}}]}]
  listeners:
  - name: ingress
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: app
corelane: {workers: 1}
";

    #[test]
    fn a_sound_configuration_is_said_to_be_ok() {
        let (flags, loaded) = loaded(SOUND, &[]);
        assert_eq!(verdict(&flags, &loaded), ("configuration '--config-yaml' OK\n".to_owned(), true));
        let configuration = loaded.configuration.expect("sound");
        assert_eq!(configuration.cores.len(), 1);
        assert_eq!(configuration.snapshot.listeners.len(), 1);
        assert!(configuration.snapshot.cluster_by_name("app").is_some());
    }

    #[test]
    fn every_finding_of_every_pass_is_printed() {
        let text =
            SOUND.replace("connect_timeout", "conect_timeout").replace("cluster: app\n", "cluster: ap\n");
        let text = text.replace("workers: 1", "workers: none");
        let (flags, loaded) = loaded(&text, &[]);
        let (said, is_sound) = verdict(&flags, &loaded);
        assert!(!is_sound && loaded.configuration.is_none());
        for part in [
            "--config-yaml:4:5: static_resources.clusters[0].conect_timeout: ",
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.cluster: unknown cluster `ap`",
            "--config-yaml:18:21: corelane.workers: \"none\" is not a whole number",
            "  4 |     conect_timeout: 1s\n    |     ^\n",
            "configuration '--config-yaml' has 3 errors\n",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_there_is_a_finding() {
        let tls = "    - transport_socket:
        name: tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates: [{certificate_chain: {filename: /nowhere/a.crt}, private_key: {filename: /nowhere/a.key}}]
      filters:
";
        let text = SOUND.replace("    - filters:\n", tls);
        let (flags, loaded) = loaded(&text, &[]);
        let (said, is_sound) = verdict(&flags, &loaded);
        assert!(!is_sound);
        let chain = "static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.common_tls_context.tls_certificates[0]";
        for (part, column) in [
            ("certificate_chain.filename: /nowhere/a.crt", 63),
            ("private_key.filename: /nowhere/a.key", 104),
        ] {
            let expected = format!("--config-yaml:17:{column}: {chain}.{part}: cannot read: ");
            assert!(said.contains(&expected), "{expected}\n{said}");
        }
        assert!(said.ends_with("has 2 errors\n"), "{said}");
    }

    #[test]
    fn every_certificate_fault_is_found_where_its_file_is_named() {
        let dir = tempfile::tempdir().expect("tempdir");
        let place = dir.path().display();
        std::fs::write(dir.path().join("empty.pem"), "").expect("write");
        let context = |kind: &str, indent: &str, fields: &str| {
            format!(
                "transport_socket:\n{indent}  name: tls\n{indent}  typed_config:\n{indent}    \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}\n{indent}    common_tls_context:\n{fields}"
            )
        };
        let server = format!(
            "            tls_certificates: [{{certificate_chain: {{filename: {place}/empty.pem}}, private_key: {{inline_string: \"x\"}}}}]\n            validation_context: {{trusted_ca: {{filename: {place}/empty.pem}}, crl: {{filename: /dev/zero}}}}\n"
        );
        let client =
            format!("          validation_context: {{trusted_ca: {{filename: {place}/empty.pem}}}}\n");
        let text = SOUND
            .replace(
                "    - filters:\n",
                &format!("    - {}      filters:\n", context("DownstreamTlsContext", "      ", &server)),
            )
            .replace(
                "    connect_timeout: 1s\n",
                &format!("    connect_timeout: 1s\n    {}", context("UpstreamTlsContext", "    ", &client)),
            );
        let (flags, loaded) = loaded(&text, &[]);
        let (said, _) = verdict(&flags, &loaded);
        let listener =
            "static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.common_tls_context";
        let cluster = "static_resources.clusters[0].transport_socket.typed_config.common_tls_context";
        for expected in [
            format!(
                "{listener}.tls_certificates[0].certificate_chain.filename: {place}/empty.pem: holds no certificate"
            ),
            format!(
                "{listener}.tls_certificates[0].private_key.inline_string: <inline>: holds no private key"
            ),
            format!(
                "{listener}.validation_context.trusted_ca.filename: {place}/empty.pem: holds no certificate"
            ),
            format!("{listener}.validation_context.crl.filename: /dev/zero: not a regular file"),
            format!(
                "{cluster}.validation_context.trusted_ca.filename: {place}/empty.pem: holds no certificate"
            ),
        ] {
            assert!(said.contains(&expected), "{expected}\n{said}");
        }
        assert!(said.ends_with("has 5 errors\n"), "{said}");
        assert!(loaded.findings.list.iter().all(|finding| finding.source == Some(0)), "{said}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_still_named() {
        let flags = Flags::parse_from(["corelane-sidecar", "-c", "/nowhere/envoy.yaml"]);
        let (said, is_sound) = verdict(&flags, &load(&flags).expect("load"));
        assert!(!is_sound);
        assert!(said.starts_with("/nowhere/envoy.yaml: cannot read: "), "{said}");
        assert!(said.ends_with("configuration '/nowhere/envoy.yaml' has 1 error\n"), "{said}");
    }

    #[test]
    fn a_layout_that_cannot_be_is_found_where_it_was_asked_for() {
        let text = SOUND.replace("{workers: 1}", "{workers: 1, cores: [{core: 7, driver: epoll}]}");
        let (flags, loaded) = loaded(&text, &[]);
        let (said, _) = verdict(&flags, &loaded);
        let expected =
            "--config-yaml:18:50: corelane.cores[0].driver: there is no core 7; there is 1, counted from 0\n";
        assert!(said.starts_with(expected), "{said}");
    }

    #[test]
    fn tools_get_json() {
        let (flags, loaded) = loaded("nope: 1", &["--format", "json"]);
        let (said, _) = verdict(&flags, &loaded);
        let json: serde_json::Value = serde_json::from_str(&said).expect("json");
        assert_eq!(json["errors"], 1);
        assert_eq!(json["findings"][0]["path"], "nope");
        assert_eq!(json["findings"][0]["line"], 1);
    }
}
