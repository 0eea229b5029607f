use super::*;
use corelane_snapshot::{DataSource, TlsCertificate, TlsParams, TlsValidation};
use corelane_tls::ContextEnvironment;
use rcgen::{CertificateParams, KeyPair};
use std::{fs, os::unix::fs::symlink, time::Duration};
use tokio::sync::Notify;

struct Pair {
    chain: String,
    key: String,
}

fn pair(name: &str) -> Pair {
    let key = KeyPair::generate().expect("key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("params");
    let certificate = params.self_signed(&key).expect("certificate");
    Pair { chain: certificate.pem(), key: key.serialize_pem() }
}

const SERVER: TlsContextId = TlsContextId(0);
const CLIENT: TlsContextId = TlsContextId(1);

/// One listener and one cluster that use the pair in `dir`.
fn uses(dir: &Path) -> Named {
    let own = TlsCertificate {
        chain: DataSource::File(dir.join("tls.crt")),
        key: DataSource::File(dir.join("tls.key")),
    };
    let validation =
        TlsValidation { trusted_ca: Some(DataSource::File(dir.join("ca.crt"))), ..Default::default() };
    let server = DownstreamTls {
        context: SERVER,
        certificates: vec![own.clone()],
        validation: Some(validation.clone()),
        require_client_certificate: true,
        alpn: Vec::new(),
        params: TlsParams::default(),
        session_tickets: true,
        session_timeout_s: None,
    };
    let client = UpstreamTls {
        context: CLIENT,
        sni: Some("payments".to_owned()),
        certificate: Some(own),
        validation: Some(validation),
        alpn: Vec::new(),
        params: TlsParams::default(),
        session_keys_max: 1,
    };
    Named::from([
        (SERVER, ("listener `ingress`".to_owned(), Origin::Server(Arc::new(server)))),
        (CLIENT, ("cluster `payments`".to_owned(), Origin::Client(Arc::new(client)))),
    ])
}

fn secrets() -> Secrets {
    Secrets::new(ContextTable::new(ContextEnvironment::new().expect("randomness")))
}

fn write(dir: &Path, pair: &Pair) {
    fs::write(dir.join("tls.crt"), &pair.chain).expect("write");
    fs::write(dir.join("tls.key"), &pair.key).expect("write");
    fs::write(dir.join("ca.crt"), &pair.chain).expect("write");
}

/// The DNS name in the certificate that handshakes present now.
fn presented(secrets: &Secrets) -> (String, String) {
    let server = secrets.table.server(ContextId(SERVER.0)).expect("server");
    let client = secrets.table.client(ContextId(CLIENT.0)).expect("client");
    let name = |info: &CertificateInfo| info.dns_sans.first().cloned().expect("a name");
    (name(server.identities()[0].leaf()), name(client.identity().expect("identity").leaf()))
}

/// Where the contexts that handshakes find lie: the same ones have the same place.
fn table_of(secrets: &Secrets) -> [Option<usize>; 2] {
    let server = secrets.table.server(ContextId(SERVER.0)).map(|context| Arc::as_ptr(&context) as usize);
    let client = secrets.table.client(ContextId(CLIENT.0)).map(|context| Arc::as_ptr(&context) as usize);
    [server, client]
}

fn both(name: &str) -> (String, String) {
    (name.to_owned(), name.to_owned())
}

#[test]
fn a_new_pair_is_taken_and_half_a_pair_is_not() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (old, new) = (pair("old.test"), pair("new.test"));
    write(dir.path(), &old);
    let mut secrets = secrets();
    assert_eq!(secrets.follow_named(uses(dir.path())), []);
    assert_eq!(presented(&secrets), both("old.test"));
    assert_eq!(secrets.recheck(), Rotation::default(), "nothing changed");

    fs::write(dir.path().join("tls.crt"), &new.chain).expect("write");
    let half = secrets.recheck();
    assert_eq!(half.rotated, [""; 0]);
    let resources: Vec<&str> = half.faults.iter().map(|fault| fault.resource.as_str()).collect();
    assert_eq!(resources, ["listener `ingress`", "cluster `payments`"]);
    assert!(half.faults[0].message.contains("does not match the certificate"), "{}", half.faults[0].message);
    assert_eq!(presented(&secrets), both("old.test"), "the last good pair stays");
    assert_eq!(secrets.recheck(), Rotation::default(), "said once");

    fs::write(dir.path().join("tls.key"), &new.key).expect("write");
    assert_eq!(secrets.recheck().rotated, ["listener `ingress`", "cluster `payments`"]);
    assert_eq!(presented(&secrets), both("new.test"));
}

/// Whoever writes a file in place empties it first. A bundle or a list of that moment must neither be taken nor turn the
/// check off.
#[test]
fn a_bundle_or_revocation_list_that_is_emptied_or_half_written_is_not_taken() {
    let dir = tempfile::tempdir().expect("tempdir");
    let own = pair("own.test");
    write(dir.path(), &own);
    let mut secrets = secrets();
    assert_eq!(secrets.follow_named(uses(dir.path())), []);
    let before = table_of(&secrets);
    let half = &own.chain[..own.chain.len() - 30];
    for text in ["", "# soon\n", half, &format!("{}{half}", own.chain), &format!("{}-----BEG", own.chain)] {
        fs::write(dir.path().join("ca.crt"), text).expect("write");
        let rotation = secrets.recheck();
        assert_eq!(rotation.rotated, [""; 0], "{text:?}");
        assert_eq!(rotation.faults.len(), 2, "{text:?}");
        let file = dir.path().join("ca.crt").display().to_string();
        assert!(rotation.faults.iter().all(|fault| fault.message.contains(&file)), "{:?}", rotation.faults);
        assert_eq!(table_of(&secrets), before, "the contexts of before are in use");
    }
    fs::write(dir.path().join("ca.crt"), &own.chain).expect("write");
    assert_eq!(secrets.recheck().rotated.len(), 2, "the whole file is taken");
}

#[test]
fn a_bundle_or_revocation_list_without_content_is_no_configuration() {
    let dir = tempfile::tempdir().expect("tempdir");
    write(dir.path(), &pair("own.test"));
    fs::write(dir.path().join("empty"), "").expect("write");
    let empty = || [DataSource::File(dir.path().join("empty")), DataSource::Inline(Vec::new())];
    let with = |change: &dyn Fn(&mut TlsValidation)| {
        let mut named = uses(dir.path());
        for (_, origin) in named.values_mut() {
            match origin {
                Origin::Server(tls) => {
                    change(Arc::get_mut(tls).expect("own").validation.as_mut().expect("some"));
                }
                Origin::Client(tls) => {
                    change(Arc::get_mut(tls).expect("own").validation.as_mut().expect("some"));
                }
            }
        }
        let mut secrets = secrets();
        let faults = secrets.follow_named(named);
        assert!(table_of(&secrets).iter().all(Option::is_none), "nothing to serve with");
        faults.into_iter().map(|fault| fault.message).collect::<Vec<_>>()
    };
    for source in empty() {
        let said = with(&|validation| validation.trusted_ca = Some(source.clone()));
        assert_eq!(said.len(), 2);
        assert!(said.iter().all(|said| said.contains("holds no certificate")), "{said:?}");
        let said = with(&|validation| validation.crl = Some(source.clone()));
        assert_eq!(said.len(), 2);
        assert!(said.iter().all(|said| said.contains("holds no X509 CRL block")), "{said:?}");
    }
}

#[test]
fn a_secret_volume_that_swaps_its_link_is_followed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let volume = dir.path();
    for (version, name) in [("..v1", "old.test"), ("..v2", "new.test")] {
        fs::create_dir(volume.join(version)).expect("create");
        write(&volume.join(version), &pair(name));
    }
    symlink("..v1", volume.join("..data")).expect("link");
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        symlink(format!("..data/{file}"), volume.join(file)).expect("link");
    }
    let mut secrets = secrets();
    assert_eq!(secrets.follow_named(uses(volume)), []);
    let real = fs::canonicalize(volume).expect("real");
    let watched = secrets.directories();
    assert!(watched.contains(volume) && watched.contains(&real.join("..v1")), "{watched:?}");

    symlink("..v2", volume.join("..next")).expect("link");
    fs::rename(volume.join("..next"), volume.join("..data")).expect("swap");
    assert_eq!(secrets.recheck().rotated.len(), 2);
    assert_eq!(presented(&secrets), both("new.test"));
    assert!(secrets.directories().contains(&real.join("..v2")));
}

#[test]
fn a_fault_at_start_names_the_resource_and_the_file() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut secrets = secrets();
    let faults = secrets.follow_named(uses(dir.path()));
    let parts: Vec<(&str, &str)> = faults
        .iter()
        .map(|fault| (fault.resource.as_str(), fault.part.as_ref().expect("a part").field))
        .collect();
    let each = |resource| ["certificate_chain", "private_key", "trusted_ca"].map(|field| (resource, field));
    assert_eq!(parts, [each("listener `ingress`"), each("cluster `payments`")].concat());
    let expected = format!("{}: cannot read: No such file", dir.path().join("tls.crt").display());
    assert!(faults[0].message.starts_with(&expected), "{}", faults[0].message);

    write(dir.path(), &pair("late.test"));
    assert_eq!(secrets.recheck().rotated.len(), 2, "files that come later are taken then");
}

#[test]
fn what_no_snapshot_names_any_more_is_emptied() {
    let dir = tempfile::tempdir().expect("tempdir");
    write(dir.path(), &pair("a.test"));
    let mut secrets = secrets();
    assert_eq!(secrets.follow_named(uses(dir.path())), []);
    let mut fewer = uses(dir.path());
    fewer.remove(&CLIENT);
    assert_eq!(secrets.follow_named(fewer), []);
    assert!(secrets.table.client(ContextId(CLIENT.0)).is_none());
    assert!(secrets.table.server(ContextId(SERVER.0)).is_some());
}

#[test]
fn what_is_shown_names_files_and_the_first_expiry() {
    let dir = tempfile::tempdir().expect("tempdir");
    write(dir.path(), &pair("a.test"));
    let mut secrets = secrets();
    assert_eq!(secrets.follow_named(uses(dir.path())), []);
    let mut shown = Vec::new();
    secrets.show(|roots, chain| shown.push((roots[0].path.clone(), chain[0].path.clone())));
    let file = |name: &str| dir.path().join(name).display().to_string();
    assert_eq!(shown, [(file("ca.crt"), file("tls.crt"))], "once, though two contexts use the files");
    let server = secrets.table.server(ContextId(SERVER.0)).expect("server");
    assert_eq!(secrets.first_expiry_s(), Some(server.identities()[0].leaf().not_after_s));
}

#[tokio::test]
async fn the_watch_tells_of_a_file_in_a_directory() {
    let dir = tempfile::tempdir().expect("tempdir");
    let changed = Arc::new(Notify::new());
    let mut watch = Watch::new(changed.clone()).expect("a watch");
    assert_eq!(watch.set(BTreeSet::from([dir.path().to_owned()])), []);
    assert_eq!(watch.set(BTreeSet::from([dir.path().to_owned()])), [], "again is no fault");
    fs::write(dir.path().join("tls.crt"), "x").expect("write");
    tokio::time::timeout(Duration::from_secs(30), changed.notified()).await.expect("told");
    let missing = dir.path().join("missing");
    let failed = watch.set(BTreeSet::from([missing.clone()]));
    assert_eq!(failed.first().map(|(dir, _)| dir.clone()), Some(missing));
}
