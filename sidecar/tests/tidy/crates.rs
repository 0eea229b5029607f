//! Which crate may know which, and which outside crates an engine crate may know (docs/architecture.md).

use crate::{
    findings::Findings,
    tree::{File, Tree, line_of},
};

/// A crate may depend on crates of a lower number only: none of its own, none above.
const LAYERS: &[(&str, u8)] = &[
    ("corelane-runtime", 1),
    ("corelane-http", 1),
    ("corelane-snapshot", 1),
    ("corelane-telemetry", 1),
    ("corelane-tls", 2),
    ("corelane-traffic", 2),
    ("corelane-xds", 2),
    ("corelane-proxy", 3),
    ("corelane-sidecar", 4),
];
/// What measures must not share a fault with what it measures; who may take anything is not in a layer at all.
const STANDS_ALONE: &[&str] = &["corelane-loadtest"];
const UNLAYERED: &[&str] = &["corelane-loadtest", "corelane-bench-micro"];

const PROTOBUF: &[&str] = &["prost", "prost-types", "prost-reflect", "prost-build", "tonic", "protobuf"];
const YAML: &[&str] = &["saphyr-parser", "serde_yaml", "serde_yaml_ng", "serde-saphyr", "yaml-rust2", "toml"];
/// Crates that bring a runtime, sockets or threads.
const RUNTIME: &[&str] =
    &["monoio", "tokio", "io-uring", "mio", "socket2", "rustix", "libc", "core_affinity", "hyper", "notify"];
const PURE: &[&str] = &["engine/http/", "engine/snapshot/", "engine/traffic/", "engine/xds/"];

/// One line below `[dependencies]` of a crate's manifest.
pub struct Dependency<'a> {
    pub name: &'a str,
    pub line: usize,
    pub rest: &'a str,
    /// `dependencies`, `dev-dependencies` or `build-dependencies`.
    pub kind: &'a str,
}

pub fn dependencies(manifest: &File) -> Vec<Dependency<'_>> {
    let (mut kind, mut found) = ("", Vec::new());
    for (number, line) in manifest.text.lines().enumerate() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            kind = if section.ends_with("dependencies") {
                section.rsplit('.').next().unwrap_or(section)
            } else {
                ""
            };
        } else if !kind.is_empty()
            && !line.starts_with('#')
            && let Some((key, rest)) = line.split_once('=')
        {
            let name = key.trim().trim_end_matches(".workspace");
            found.push(Dependency { name, line: number + 1, rest: rest.trim(), kind });
        }
    }
    found
}

fn package_name(manifest: &File) -> &str {
    let named = manifest.text.lines().find_map(|line| line.strip_prefix("name = \""));
    named.and_then(|rest| rest.split('"').next()).unwrap_or_default()
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

pub fn layers(tree: &Tree, findings: &mut Findings) {
    for manifest in tree.manifests().filter(|manifest| !manifest.path.contains("/fuzz/")) {
        let name = package_name(manifest);
        let own = layer(name);
        if own.is_none() && !UNLAYERED.contains(&name) {
            findings.add(
                &manifest.path,
                1,
                "layers",
                format!("crate {name} has no layer in sidecar/tests/tidy/crates.rs"),
            );
        }
        for dependency in
            dependencies(manifest).iter().filter(|dependency| dependency.kind != "dev-dependencies")
        {
            let below = layer(dependency.name);
            if let (Some(own), Some(below)) = (own, below)
                && below >= own
            {
                let detail = format!("{name} (layer {own}) may not know {} (layer {below})", dependency.name);
                findings.add(&manifest.path, dependency.line, "layers", detail);
            }
            if STANDS_ALONE.contains(&name) && dependency.name.starts_with("corelane-") {
                let detail =
                    format!("{name} shares no code with what it measures, so not {}", dependency.name);
                findings.add(&manifest.path, dependency.line, "layers", detail);
            }
            if own.is_some() && UNLAYERED.contains(&dependency.name) {
                let detail = format!("{name} ships, {} does not", dependency.name);
                findings.add(&manifest.path, dependency.line, "layers", detail);
            }
        }
    }
    for name in LAYERS.iter().map(|(name, _)| *name) {
        if !tree.manifests().any(|manifest| package_name(manifest) == name) {
            findings.add("Cargo.toml", 1, "layers", format!("{name} is listed in tidy and has gone"));
        }
    }
}

pub fn formats(tree: &Tree, findings: &mut Findings) {
    for manifest in tree.manifests().filter(|manifest| manifest.path.starts_with("engine/")) {
        let path = &manifest.path;
        for dependency in
            dependencies(manifest).iter().filter(|dependency| dependency.kind != "dev-dependencies")
        {
            let mut refuse = |rule: &str, why: &str| {
                findings.add(path, dependency.line, rule, format!("{}: {why}", dependency.name));
            };
            if PROTOBUF.contains(&dependency.name) && path != "engine/xds/Cargo.toml" {
                refuse("protobuf", "inside engine only xds knows protobuf");
            }
            if YAML.contains(&dependency.name) {
                refuse("no files", "the engine reads no configuration text");
            }
            if PURE.iter().any(|pure| path.starts_with(pure)) && RUNTIME.contains(&dependency.name) {
                refuse(
                    "sans-io",
                    "this crate decides and encodes; sockets, threads and clocks are handed to it as values",
                );
            }
            if path == "engine/proxy/Cargo.toml" && dependency.name == "corelane-xds" {
                refuse("protobuf", "proxy sees snapshots, never what they were made from");
            }
        }
    }
}

pub fn versions(tree: &Tree, findings: &mut Findings) {
    for manifest in tree.manifests().filter(|manifest| !manifest.path.contains("/fuzz/")) {
        for dependency in dependencies(manifest) {
            let inherits = dependency.rest == "true" || dependency.rest.contains("workspace = true");
            if !inherits {
                let detail = format!(
                    "{} names its own version or path; write `{0}.workspace = true`",
                    dependency.name
                );
                findings.add(&manifest.path, dependency.line, "one version", detail);
            }
        }
    }
    let root = tree.file("Cargo.toml").expect("the root manifest");
    let mut seen = std::collections::HashSet::new();
    for dependency in dependencies(root) {
        if !seen.insert(dependency.name.replace('_', "-")) {
            findings.add(
                &root.path,
                dependency.line,
                "one version",
                format!("{} stands here twice", dependency.name),
            );
        }
        let word = format!("{}.workspace", dependency.name);
        if !tree
            .manifests()
            .any(|manifest| manifest.text.contains(&word) || inline(manifest, dependency.name))
        {
            findings.add(
                &root.path,
                dependency.line,
                "one version",
                format!("no crate takes {}", dependency.name),
            );
        }
    }
}

fn inline(manifest: &File, name: &str) -> bool {
    manifest.text.contains(&format!("{name} = {{ workspace = true"))
}

#[test]
fn a_manifest_is_read_by_sections() {
    let text = "[package]\nname = \"corelane-x\"\n[dependencies]\nprost.workspace = true\n# a = 1\n[dev-dependencies]\nb = \"1\"\n";
    let manifest = File { path: "engine/x/Cargo.toml".into(), text: text.into(), code: String::new() };
    let found: Vec<_> = dependencies(&manifest).iter().map(|d| (d.name, d.kind, d.line)).collect();
    assert_eq!(found, [("prost", "dependencies", 4), ("b", "dev-dependencies", 7)]);
    assert_eq!(package_name(&manifest), "corelane-x");
    assert_eq!(line_of(text, text.find("prost").expect("there")), 4);
}
