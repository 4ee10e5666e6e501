//! The documents that this process has seen and that only read, by their SHA-256: a request may
//! name one by its hash alone (automatic persisted queries), and one that is sent again is not
//! parsed again.
//!
//! Invariant: a hash is here only if this process has computed it of the document, and the document
//! has queries alone.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use crate::telemetry::metrics::Counter;

/// How many documents are remembered. Those that are used seldom are forgotten first.
pub const MAX_DOCUMENTS: usize = 4096;

/// The SHA-256 of a document.
pub type DocumentHash = [u8; 32];

/// A document that only reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownDocument {
    /// Its hash.
    pub hash: DocumentHash,
    /// Whether it has one operation alone.
    pub is_single: bool,
}

/// The documents that only read.
#[derive(Debug)]
pub struct KnownDocuments {
    known: Cache<DocumentHash, bool>,
    /// Requests that were writes because nobody could tell what they are.
    pub in_doubt: Arc<Counter>,
    /// Requests that name a document by a hash that is not known.
    pub unknown: Arc<Counter>,
}

impl Default for KnownDocuments {
    fn default() -> Self {
        Self { known: Cache::new(MAX_DOCUMENTS), in_doubt: Arc::default(), unknown: Arc::default() }
    }
}

impl KnownDocuments {
    /// The document with this hash.
    #[must_use]
    pub fn get(&self, hash: &DocumentHash) -> Option<KnownDocument> {
        self.known.get(hash).map(|is_single| KnownDocument { hash: *hash, is_single })
    }

    /// Remembers a document.
    pub fn remember(&self, document: KnownDocument) {
        self.known.insert(document.hash, document.is_single);
    }

    /// Forgets the document with this hash.
    pub fn forget(&self, hash: &DocumentHash) {
        self.known.remove(hash);
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

/// The hash of a document.
pub(super) fn hash_of(text: &str) -> DocumentHash {
    Sha256::digest(text.as_bytes()).into()
}
