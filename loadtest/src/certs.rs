//! A small certificate authority with SPIFFE leaves, for benchmarks, the demo and tests.
//!
//! `ca.pem` is the trust bundle; each name gets `<name>.pem` (leaf, then nothing: the root is the issuer) and
//! `<name>.key` (PKCS#8). Every leaf is good for both sides of mTLS: P-256, clientAuth and serverAuth, one SPIFFE URI.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::Error;

/// Most leaves one call issues.
pub const NAMES_MAX: usize = 1_000;

/// What to issue.
#[derive(Debug, Clone)]
pub struct Order {
    /// Created when absent; files in it are overwritten.
    pub directory: PathBuf,
    /// Service accounts, each one a file stem.
    pub names: Vec<String>,
    pub trust_domain: String,
    pub namespace: String,
    /// DNS and IP names added to every leaf, for peers that check host names.
    pub hosts: Vec<String>,
    /// Validity of leaves from now, in hours. Negative ones are already expired.
    pub hours: i64,
}

impl Order {
    /// The usual two services of this project's examples, valid for a day, reachable as localhost.
    pub fn example(directory: impl Into<PathBuf>) -> Self {
        Order {
            directory: directory.into(),
            names: vec!["orders".into(), "payments".into()],
            trust_domain: "cluster.local".into(),
            namespace: "prod".into(),
            hosts: vec!["localhost".into(), "127.0.0.1".into()],
            hours: 24,
        }
    }

    /// The SPIFFE id that a leaf of `name` carries.
    pub fn spiffe_id(&self, name: &str) -> String {
        format!("spiffe://{}/ns/{}/sa/{name}", self.trust_domain, self.namespace)
    }
}

/// Issues a new root and all leaves and returns the SPIFFE ids in the order of the names.
pub fn issue(order: &Order) -> Result<Vec<String>, Error> {
    if order.names.is_empty() || order.names.len() > NAMES_MAX {
        return Err(Error::usage(format!("certs: 1 to {NAMES_MAX} names are issued at once")));
    }
    fs::create_dir_all(&order.directory).map_err(|e| file(&order.directory, e))?;
    let root_key = KeyPair::generate()?;
    let root = root_params(&order.trust_domain);
    let certificate = root.self_signed(&root_key)?;
    write(&order.directory.join("ca.pem"), &certificate.pem())?;
    write(&order.directory.join("ca.key"), &root_key.serialize_pem())?;
    let issuer = Issuer::new(root, root_key);
    order.names.iter().map(|name| issue_leaf(order, name, &issuer)).collect()
}

fn issue_leaf(order: &Order, name: &str, issuer: &Issuer<'_, KeyPair>) -> Result<String, Error> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(Error::usage(format!("certs: {name:?} cannot be a service account and a file name")));
    }
    let id = order.spiffe_id(name);
    let mut params = CertificateParams::new(order.hosts.clone())?;
    params.subject_alt_names.push(SanType::URI(id.as_str().try_into()?));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    // back-dated, so that a peer whose clock is behind accepts it
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1 + order.hours.min(0).abs());
    params.not_after = OffsetDateTime::now_utc() + Duration::hours(order.hours);
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, issuer)?;
    write(&order.directory.join(format!("{name}.pem")), &leaf.pem())?;
    write(&order.directory.join(format!("{name}.key")), &key.serialize_pem())?;
    Ok(id)
}

fn root_params(trust_domain: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(3650);
    params
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|e| file(path, e))
}

fn file(path: &Path, error: std::io::Error) -> Error {
    Error::File { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls;

    #[test]
    fn leaves_chain_to_the_root_and_carry_their_spiffe_id() {
        let directory = tempfile::tempdir().unwrap();
        let order = Order::example(directory.path());
        let ids = issue(&order).unwrap();
        assert_eq!(
            ids,
            ["spiffe://cluster.local/ns/prod/sa/orders", "spiffe://cluster.local/ns/prod/sa/payments"]
        );
        let leaf = tls::read_chain(&directory.path().join("orders.pem")).unwrap();
        assert_eq!(leaf.len(), 1);
        let id = ids[0].as_bytes();
        assert!(leaf[0].windows(id.len()).any(|window| window == id));
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut order = Order::example(directory.path());
        order.names = vec!["../orders".into()];
        let refused = issue(&order).unwrap_err().to_string();
        assert!(refused.contains("cannot be a service account"), "{refused}");
    }
}
