//! The seals of tag records: with a secret, a record counts only if its nonce was sealed by one
//! that knows the secret.
//!
//! A seal is a MAC of the tag, the nonce, the step, the generation and the fence. The scripts have
//! no secret, and Redis counts the steps, so a nonce is sealed for a step that was read, and
//! written only if that is still the present one. A purge writes a nonce without a seal, which
//! proves nothing; the next fill seals another one.

use hmac::Mac as _;

use crate::coherence::stamp::Nonce;
use crate::coherence::tag_record::{NonceSeal, TagRecord};
use crate::policy::tag::Tag;
use crate::secret::Hasher;

/// Makes and checks seals, if there is a secret.
#[derive(Debug)]
pub(super) struct RecordSeal(Option<Hasher>);

/// What a nonce is sealed for, besides its tag.
#[derive(Clone, Copy, Debug)]
pub(super) struct SealContext<'a> {
    pub(super) generation: Nonce,
    pub(super) fence: &'a str,
    pub(super) seq: u64,
}

impl RecordSeal {
    pub(super) fn new(secret: Option<&[u8]>) -> Self {
        Self(secret.map(Hasher::new))
    }

    pub(super) const fn is_keyed(&self) -> bool {
        self.0.is_some()
    }

    /// A fresh nonce as the record will have it.
    pub(super) fn fresh(&self, tag: &Tag, context: SealContext<'_>) -> String {
        let nonce = Nonce::random();
        let Some(hasher) = &self.0 else { return nonce.to_hex() };
        let mac = Nonce(mac(hasher, tag, nonce, context));
        format!("{}.{}.{}", nonce.to_hex(), context.seq, mac.to_hex())
    }

    /// Whether a nonce with this seal counts.
    pub(super) fn accepts(
        &self,
        tag: &Tag,
        seal: Option<&NonceSeal>,
        (generation, fence): (Nonce, &str),
    ) -> bool {
        use subtle::ConstantTimeEq as _;
        match (&self.0, seal) {
            (None, None) => true,
            (Some(hasher), Some(seal)) => {
                let context = SealContext { generation, fence, seq: seal.seq };
                mac(hasher, tag, seal.nonce, context).ct_eq(&seal.mac).into()
            }
            _ => false,
        }
    }

    /// Whether a record counts: its step is not older than its seal, either.
    pub(super) fn accepts_record(&self, tag: &Tag, record: &TagRecord, generation: Nonce) -> bool {
        record.seal.as_ref().is_none_or(|seal| seal.seq <= record.seq)
            && self.accepts(tag, record.seal.as_ref(), (generation, &record.fence))
    }
}

fn mac(hasher: &Hasher, tag: &Tag, nonce: Nonce, context: SealContext<'_>) -> [u8; 16] {
    let mut mac = hasher.mac("tag record");
    mac.update(&nonce.0);
    // A soft purge of everything leaves the first half.
    mac.update(&context.generation.0[..8]);
    mac.update(&context.seq.to_be_bytes());
    mac.update(&(context.fence.len() as u64).to_be_bytes());
    mac.update(context.fence.as_bytes());
    mac.update(tag.as_str().as_bytes());
    let mut half = [0; 16];
    half.copy_from_slice(&mac.finalize().into_bytes()[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATION: Nonce = Nonce([9; 16]);

    fn context(seq: u64) -> SealContext<'static> {
        SealContext { generation: GENERATION, fence: "fence", seq }
    }

    fn record(token: &str, seq: u64, fence: &str) -> TagRecord {
        TagRecord::parse(format!("1 {token} {seq} {fence} -").as_bytes()).expect("a record")
    }

    #[test]
    fn a_seal_holds_for_its_own_record_alone() {
        let seal = RecordSeal::new(Some(b"secret"));
        let (tag, other) = (Tag::new("a"), Tag::new("b"));
        let token = seal.fresh(&tag, context(7));
        let own = record(&token, 7, "fence");
        assert!(seal.accepts_record(&tag, &own, GENERATION));
        assert!(seal.accepts_record(&tag, &record(&token, 8, "fence"), GENERATION), "marked since");
        assert!(!seal.accepts_record(&other, &own, GENERATION), "another tag");
        assert!(!seal.accepts_record(&tag, &own, Nonce([8; 16])), "another generation");
        assert!(!seal.accepts_record(&tag, &record(&token, 7, "other"), GENERATION), "fence");
        assert!(
            !seal.accepts_record(&tag, &record(&token, 6, "fence"), GENERATION),
            "a lower step"
        );
        assert!(!RecordSeal::new(Some(b"other")).accepts_record(&tag, &own, GENERATION));
        assert!(!RecordSeal::new(None).accepts_record(&tag, &own, GENERATION), "without a secret");
        let step = token.replacen(".7.", ".8.", 1);
        assert!(!seal.accepts_record(&tag, &record(&step, 8, "fence"), GENERATION), "a later step");
        let bare = record(&Nonce::random().to_hex(), 7, "fence");
        assert!(!seal.accepts_record(&tag, &bare, GENERATION), "not sealed");
        assert!(RecordSeal::new(None).accepts_record(&tag, &bare, GENERATION));
    }

    #[test]
    fn a_soft_purge_keeps_the_seal_and_changes_the_nonce() {
        let seal = RecordSeal::new(Some(b"secret"));
        let tag = Tag::new("a");
        let token = seal.fresh(&tag, context(7));
        let before = record(&token, 7, "fence");
        let soft = record(&format!("{token}~{:011x}{:05x}", 1234, 5), 8, "fence");
        assert!(seal.accepts_record(&tag, &soft, GENERATION));
        assert_eq!(soft.nonce.soft_purged_from(before.nonce), Some(1234));
    }
}
