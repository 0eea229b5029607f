//! A bootstrap file, read.

use crate::{
    Error, Finding, Schema, Severity, check,
    finding::{Findings, Path, merge},
    place,
    proto::envoy::config::bootstrap::v3::Bootstrap,
    read,
    schema::BOOTSTRAP,
    tree::{Node, Spanned},
};
use prost_reflect::prost::Message;

/// What a bootstrap file says, as far as it could be read; see [`Document::findings`] for the rest.
#[derive(Debug)]
pub struct Document<'t> {
    pub bootstrap: Bootstrap,
    /// The whole message, with the fields that are accepted but not read; for `/config_dump`.
    pub encoded: Vec<u8>,
    tree: &'t Spanned<Node>,
    findings: Vec<Finding>,
}

impl<'t> Document<'t> {
    /// Maps the tree, refuses fields that are not implemented, and checks the API's own value rules. Always gives
    /// a document: translation goes on over a faulty one, so that one run finds everything.
    ///
    /// # Errors
    /// Only where the built-in descriptors are damaged.
    pub fn read(schema: &Schema, tree: &'t Spanned<Node>) -> Result<Document<'t>, Error> {
        let descriptor = schema.message(BOOTSTRAP).ok_or_else(|| Error::UnknownType(BOOTSTRAP.to_owned()))?;
        let mapped = read::map(schema, descriptor, tree);
        let checked = check::check(schema, &mapped.message, Path::default());
        let mut checked = Findings::into_vec(checked);
        place::fill(tree, &mut checked);
        let findings = merge(mapped.findings.into_vec(), checked);
        let encoded = mapped.message.encode_to_vec();
        let bootstrap = Bootstrap::decode(encoded.as_slice())
            .map_err(|e| Error::Decode { type_name: BOOTSTRAP.to_owned(), reason: e.to_string() })?;
        Ok(Document { bootstrap, encoded, tree, findings })
    }

    /// Gives findings that know only their field path the place of that field.
    pub(crate) fn locate(&self, findings: &mut [Finding]) {
        place::fill(self.tree, findings);
    }

    /// In the order of the passes; sort by line to print.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }
}
