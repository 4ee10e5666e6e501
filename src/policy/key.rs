//! Keys: a typed, length-prefixed encoding of everything that decides whether two requests may
//! share a response, and its hashes.
//!
//! Invariants:
//! - The encoding is injective. Every part consists of a kind, a length and the bytes, so no value
//!   can imitate another part.
//! - There are two hashes. The slot is where this process's memory has the entry: it costs little,
//!   is keyed with what nobody knows, and whoever finds something there compares the encoding. The
//!   digest (SHA-256) is the name among sidecars, and what is not compared goes by it. A hit from
//!   memory needs no digest.

use std::borrow::Cow;
use std::fmt;
use std::hash::Hasher as _;
use std::sync::{LazyLock, OnceLock};

use http::header::{ACCEPT_LANGUAGE, HeaderName};
use sha2::{Digest as _, Sha256};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::units::hex;

pub mod view;

/// The kinds of parts. The numbers are stored, so their meaning never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyPart {
    /// The fingerprint of the route's policy.
    Route = 1,
    /// The authority.
    Host = 2,
    /// The path in normal form.
    Path = 3,
    /// The whole query, as it was sent.
    Query = 4,
    /// The parameters of the query that the route names.
    Parameters = 5,
    /// A field's name.
    Field = 6,
    /// The value of the field named before.
    Value = 7,
    /// The client's credential, hashed.
    Credential = 8,
    /// The client has no credential.
    Anonymous = 9,
    /// The name of a header that is always part of the key.
    Header = 10,
    /// The value of the header named before.
    HeaderValue = 11,
    /// The name of a header that `Vary` names.
    Vary = 12,
    /// The normalised value of the header named before.
    VaryValue = 13,
    /// The header named before is absent.
    VaryAbsent = 14,
    /// The cookies that are part of the key in scope `shared`, hashed.
    Cookies = 15,
    /// The optional field named before is absent.
    FieldAbsent = 16,
    /// The origin, if it is not the one that the process was started with.
    Origin = 17,
    /// The value of the field named before, which JSON does not write as a string.
    JsonValue = 18,
    /// The caller is a guest of the route: nothing of what `signed_in` names.
    Guest = 19,
    /// The method, if it is neither GET nor HEAD.
    Method = 20,
    /// The digest of the body that the origin gets on a fill.
    Body = 21,
}

/// Where the memory of this process has what belongs to a key. Another process has it elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotIndex(pub u128);

/// What a hash of this process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HashPurpose {
    /// Where an entry is in memory.
    Slot = 1,
    /// Who is asking, in scope `shared`.
    Caller = 2,
}

/// A hash of 128 bits that is keyed with what nobody outside of this process knows, and that costs
/// a fraction of SHA-256. It is never stored or shown.
#[derive(Debug)]
pub struct ProcessHasher(SipHasher13);

/// SECURITY: without it, who finds two inputs with one hash could make one of them pass for the
/// other.
static PROCESS_SECRET: LazyLock<[u8; 16]> = LazyLock::new(rand::random);

impl ProcessHasher {
    /// A hash of bytes that are still to come.
    #[must_use]
    pub fn new(purpose: HashPurpose) -> Self {
        let mut hasher = SipHasher13::new_with_key(&PROCESS_SECRET);
        hasher.write_u8(purpose as u8);
        Self(hasher)
    }

    /// Adds bytes. Where one piece ends and the next begins does not count.
    pub fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The hash.
    #[must_use]
    pub fn finish(self) -> u128 {
        self.0.finish128().as_u128()
    }
}

impl SlotIndex {
    /// The slot of a canonical encoding.
    #[must_use]
    pub fn from_canonical(canonical: &[u8]) -> Self {
        let mut hasher = ProcessHasher::new(HashPurpose::Slot);
        hasher.write(canonical);
        Self(hasher.finish())
    }
}

/// The hashes of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash {
    /// SHA-256: the name that an entry is stored under in Redis.
    pub digest: [u8; 32],
    /// Where it is in memory.
    pub slot: SlotIndex,
}

impl KeyHash {
    /// The hashes of a canonical encoding.
    #[must_use]
    pub fn from_canonical(canonical: &[u8]) -> Self {
        Self::with_slot(canonical, SlotIndex::from_canonical(canonical))
    }

    fn with_slot(canonical: &[u8], slot: SlotIndex) -> Self {
        Self { digest: Sha256::digest(canonical).into(), slot }
    }

    /// The first half of the digest.
    #[must_use]
    pub fn half(self) -> u128 {
        let (half, _) = self.digest.split_at(16);
        half.try_into().map_or(0, u128::from_be_bytes)
    }

    /// All 64 hexadecimal digits of the digest.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.digest)
    }

    /// Hashes of no key.
    #[cfg(test)]
    pub const fn of_byte(byte: u8) -> Self {
        Self { digest: [byte; 32], slot: SlotIndex(byte as u128) }
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({})", crate::units::short_hex(&self.digest))
    }
}

/// A key: its canonical encoding, and the hashes of that.
#[derive(Clone, Debug)]
pub struct Key {
    canonical: Canonical,
    slot: SlotIndex,
    /// Once somebody has asked for it.
    hash: OnceLock<KeyHash>,
}

/// On the heap, because a key is moved several times between the first of its parts and the look
/// into memory.
type Canonical = Vec<u8>;

/// What ordinary keys need: so that they need one allocation.
const USUAL_LENGTH: usize = 240;

/// What most variants need besides their primary key.
const USUAL_VARIANT: usize = 96;

impl Key {
    /// The canonical encoding. Stored with the entry and compared on every hit.
    #[must_use]
    pub fn canonical(&self) -> &[u8] {
        &self.canonical
    }

    /// Where memory has what belongs to the key.
    #[must_use]
    pub const fn slot(&self) -> SlotIndex {
        self.slot
    }

    /// The hashes of the encoding. The first call costs a SHA-256.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        *self.hash.get_or_init(|| KeyHash::with_slot(&self.canonical, self.slot))
    }

    /// This key, narrowed to the variant that these header values select.
    #[must_use]
    pub fn variant<'a>(
        &self,
        values: impl Iterator<Item = (&'a HeaderName, Option<Cow<'a, [u8]>>)>,
    ) -> Self {
        let mut writer = KeyWriter(Canonical::with_capacity(self.canonical.len() + USUAL_VARIANT));
        writer.0.extend_from_slice(&self.canonical);
        for (name, value) in values {
            writer.part(KeyPart::Vary, name.as_str().as_bytes());
            match value {
                Some(value) => writer.part(KeyPart::VaryValue, &value),
                None => writer.part(KeyPart::VaryAbsent, b""),
            }
        }
        writer.finish()
    }
}

/// The hash of the key that a request would have without `Accept-Language`, and the normal form of
/// that header in its key; empty without one.
#[must_use]
pub fn without_languages(canonical: &[u8]) -> (KeyHash, &str) {
    let (hash, languages) = without_header(canonical, &ACCEPT_LANGUAGE);
    (hash, languages.and_then(|text| str::from_utf8(text).ok()).unwrap_or_default())
}

fn without_header<'a>(canonical: &'a [u8], name: &HeaderName) -> (KeyHash, Option<&'a [u8]>) {
    let mut writer = KeyWriter(canonical.get(..1).unwrap_or_default().to_vec());
    let (mut is_named, mut value) = (false, None);
    for (kind, bytes) in parts(canonical) {
        let is_value = is_named && kind == KeyPart::HeaderValue as u8;
        is_named = kind == KeyPart::Header as u8 && bytes == name.as_str().as_bytes();
        if is_value {
            value = Some(bytes);
        } else if !is_named {
            writer.raw_part(kind, bytes);
        }
    }
    (writer.finish().hash(), value)
}

/// The fingerprint of the policy of the route that a key of this version is for.
#[must_use]
pub fn route_of(canonical: &[u8]) -> Option<[u8; 8]> {
    let route = |(kind, bytes): (u8, &[u8])| {
        (kind == KeyPart::Route as u8).then(|| bytes.try_into().ok()).flatten()
    };
    (canonical.first() == Some(&VERSION)).then(|| parts(canonical).find_map(route)).flatten()
}

/// Whether a key holds what identifies a client: a credential, or cookies.
#[must_use]
pub fn names_client(canonical: &[u8]) -> bool {
    let kinds = [KeyPart::Credential, KeyPart::Cookies].map(|kind| kind as u8);
    parts(canonical).any(|(kind, _)| kinds.contains(&kind))
}

/// The hash of a key before `Vary` narrowed it.
#[must_use]
pub fn primary_hash(canonical: &[u8]) -> KeyHash {
    let length = parts(canonical)
        .take_while(|(kind, _)| *kind != KeyPart::Vary as u8)
        .map(|(_, bytes)| bytes.len() + PART_HEAD)
        .sum::<usize>();
    KeyHash::from_canonical(canonical.get(..=length).unwrap_or(canonical))
}

/// Writes a key part by part.
#[derive(Debug)]
pub struct KeyWriter(Canonical);

/// The version of the encoding, of how the request of a fill is made from a key, and of the tags
/// that an entry carries: entries of earlier versions, which may have been filled with more than
/// their keys hold, or lack tags by which they are purged now, are never found.
pub const VERSION: u8 = 3;

/// The kind of a part, and its length.
const PART_HEAD: usize = 5;

impl Default for KeyWriter {
    fn default() -> Self {
        let mut canonical = Canonical::with_capacity(USUAL_LENGTH);
        canonical.push(VERSION);
        Self(canonical)
    }
}

impl KeyWriter {
    /// Adds a part.
    pub fn part(&mut self, part: KeyPart, bytes: &[u8]) {
        self.raw_part(part as u8, bytes);
    }

    fn raw_part(&mut self, kind: u8, bytes: &[u8]) {
        // The length fits, because a request head is limited far below 4 GiB. If a part were
        // longer, only its length field would be capped, not its bytes.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let [a, b, c, d] = length.to_be_bytes();
        self.0.extend_from_slice(&[kind, a, b, c, d]);
        self.0.extend_from_slice(bytes);
    }

    /// The length so far, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes written since the key had this length.
    #[must_use]
    pub fn since(&self, length: usize) -> &[u8] {
        self.0.get(length..).unwrap_or_default()
    }

    /// Finishes the key.
    #[must_use]
    pub fn finish(self) -> Key {
        let slot = SlotIndex::from_canonical(&self.0);
        Key { canonical: self.0, slot, hash: OnceLock::new() }
    }
}

/// The parts of a canonical key. Ends early at bytes that do not encode a part.
fn parts(canonical: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = canonical.get(1..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (&kind, after) = rest.split_first()?;
        let (length, after) = after.split_at_checked(4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?);
        let (bytes, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        rest = after;
        Some((kind, bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [KeyPart; 19] = [
        KeyPart::Route,
        KeyPart::Host,
        KeyPart::Path,
        KeyPart::Query,
        KeyPart::Parameters,
        KeyPart::Field,
        KeyPart::Value,
        KeyPart::Credential,
        KeyPart::Anonymous,
        KeyPart::Header,
        KeyPart::HeaderValue,
        KeyPart::Vary,
        KeyPart::VaryValue,
        KeyPart::VaryAbsent,
        KeyPart::Cookies,
        KeyPart::JsonValue,
        KeyPart::Guest,
        KeyPart::Method,
        KeyPart::Body,
    ];

    fn written(list: &[(usize, Vec<u8>)]) -> Key {
        let mut writer = KeyWriter::default();
        for (kind, bytes) in list {
            writer.part(KINDS[*kind], bytes);
        }
        writer.finish()
    }

    fn list() -> impl Strategy<Value = Vec<(usize, Vec<u8>)>> {
        // Few distinct bytes, so that almost equal keys are common.
        proptest::collection::vec(
            (
                0..KINDS.len(),
                proptest::collection::vec(
                    prop_oneof![Just(0u8), Just(1), Just(7), Just(b'|')],
                    0..6,
                ),
            ),
            0..5,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn different_parts_give_different_keys(one in list(), two in list()) {
            let (a, b) = (written(&one), written(&two));
            prop_assert_eq!(one == two, a.canonical() == b.canonical());
            prop_assert_eq!(one == two, a.hash() == b.hash());
            prop_assert_eq!(one == two, a.slot() == b.slot());
            let whole = KeyHash::from_canonical(a.canonical());
            prop_assert!(a.hash() == whole && a.slot() == whole.slot);
        }

        #[test]
        fn a_key_can_be_read_back(list in list()) {
            let key = written(&list);
            let read: Vec<(u8, Vec<u8>)> =
                parts(key.canonical()).map(|(kind, bytes)| (kind, bytes.to_vec())).collect();
            let wrote: Vec<(u8, Vec<u8>)> =
                list.into_iter().map(|(kind, bytes)| (KINDS[kind] as u8, bytes)).collect();
            prop_assert_eq!(read, wrote);
        }

        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            parts(&bytes).for_each(drop);
        }
    }

    #[test]
    fn a_delimiter_in_a_value_cannot_imitate_another_part() {
        let one = written(&[(6, b"a|b".to_vec()), (6, b"c".to_vec())]);
        let two = written(&[(6, b"a".to_vec()), (6, b"b|c".to_vec())]);
        assert_ne!(one.hash(), two.hash());
    }

    #[test]
    fn a_key_without_a_header_is_that_of_a_request_without_it() {
        let key = |language: Option<&str>, vary: bool| {
            let mut writer = KeyWriter::default();
            writer.part(KeyPart::Path, b"/a");
            let headers = [("accept", Some("text/html")), ("accept-language", language)];
            for (name, value) in headers.into_iter().filter_map(|(n, v)| Some((n, v?))) {
                writer.part(KeyPart::Header, name.as_bytes());
                writer.part(KeyPart::HeaderValue, value.as_bytes());
            }
            let (key, name) = (writer.finish(), HeaderName::from_static("accept-language"));
            if vary { key.variant([(&name, None)].into_iter()) } else { key }
        };
        let name = HeaderName::from_static("accept-language");
        for vary in [false, true] {
            let bare = key(None, vary);
            let with = key(Some("de,en"), vary);
            assert_eq!(without_header(with.canonical(), &name), (bare.hash(), Some(&b"de,en"[..])));
            assert_eq!(without_header(bare.canonical(), &name), (bare.hash(), None));
            assert_ne!(with.hash(), bare.hash());
        }
    }

    #[test]
    fn what_a_key_says_of_itself_is_read_back() {
        let key = |kind| {
            let mut writer = KeyWriter::default();
            writer.part(KeyPart::Route, &[7; 8]);
            writer.part(kind, b"x");
            writer.finish()
        };
        let (named, anonymous) = (key(KeyPart::Credential), key(KeyPart::Anonymous));
        assert!(names_client(named.canonical()) && !names_client(anonymous.canonical()));
        assert!(names_client(key(KeyPart::Cookies).canonical()));
        assert_eq!(route_of(named.canonical()), Some([7; 8]));
        let mut older = named.canonical().to_vec();
        older[0] -= 1;
        assert_eq!((route_of(&older), route_of(b"")), (None, None));
        let name = HeaderName::from_static("accept");
        let variant = named.variant([(&name, Some(Cow::Borrowed(&b"a"[..])))].into_iter());
        for canonical in [named.canonical(), variant.canonical()] {
            assert_eq!(primary_hash(canonical), named.hash());
        }
        let _ = primary_hash(b"");
    }

    #[test]
    fn variants_of_one_key_differ_from_it_and_from_each_other() {
        let base = written(&[(2, b"/a".to_vec())]);
        let name = HeaderName::from_static("accept-language");
        let [en, none] = [Some(Cow::Borrowed(&b"en"[..])), None]
            .map(|value| base.variant([(&name, value)].into_iter()));
        assert_ne!(en.hash(), none.hash());
        assert_ne!(base.hash(), none.hash());
    }
}
