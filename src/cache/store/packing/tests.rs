//! What is compressed and what is not, and what bytes of Redis become.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderName, StatusCode};

use super::*;
use crate::cache::entry::EntryMetadata;
use crate::coherence::stamp::Nonce;
use crate::semantics::times::{Leeway, Times};

const LONGEST: u64 = 1 << 20;
const ON: BodyCompression = BodyCompression { level: 3, min_size: 1 << 10 };

fn packing(compression: Option<BodyCompression>) -> Packing {
    let counters = PackingCounters::default();
    Packing::new(Seal::default(), LONGEST, Clock::system(), counters).with_compression(compression)
}

fn entry(headers: &[(HeaderName, &'static str)], body: &[u8]) -> Entry {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
        .collect();
    let metadata = EntryMetadata {
        times: Times {
            received: Wall(1),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_secs(1),
        },
        leeway: Leeway::default(),
        fetch_duration: Duration::ZERO,
        response_tags: Box::default(),
    };
    Entry::compact(b"key", StatusCode::OK, &headers, &[Bytes::copy_from_slice(body)], metadata)
}

fn json(length: usize) -> Entry {
    entry(&[(CONTENT_TYPE, "application/json")], &text(length))
}

/// So many bytes of a list whose members resemble one another.
fn text(length: usize) -> Vec<u8> {
    let members =
        (0..).flat_map(|id: u32| format!("{{\"id\":{id},\"name\":\"n{id}\"}},").into_bytes());
    members.take(length).collect()
}

async fn stored(packing: &Packing, entry: &Entry) -> (Vec<BodyForm>, Bytes) {
    let stamp = Stamp { generation: Nonce([1; 16]), tags: Box::default() };
    let before = BodyForm::ALL.map(|form| packing.counters.of(form).get());
    let bytes = packing.pack(entry, &stamp, Wall(1)).await;
    let grown = BodyForm::ALL.into_iter().zip(before);
    let forms = grown.filter(|(form, before)| packing.counters.of(*form).get() > *before);
    (forms.map(|(form, _)| form).collect(), bytes)
}

#[tokio::test]
async fn text_above_the_size_is_compressed_whoever_does_it() {
    let on = packing(Some(ON));
    for length in [1024, 10_000, 16 << 10, (16 << 10) + 1, 200_000] {
        let entry = json(length);
        let (forms, bytes) = stored(&on, &entry).await;
        assert_eq!(forms, [BodyForm::Compressed], "{length}");
        assert!(bytes.len() < length * 2 / 3, "{length}: {}", bytes.len());
        for reader in [&on, &packing(None)] {
            let Some(Unpacked::Entry(again, _)) = reader.unpack(&bytes, true).await else {
                panic!("{length}: a miss")
            };
            assert_eq!((again.headers(), again.body), (entry.headers(), entry.body.clone()));
            assert!(reader.counters.decompressed.get() > 0, "whatever its own setting");
        }
    }
    assert_eq!(on.counters.original_bytes.get(), 1024 + 10_000 + (32 << 10) + 1 + 200_000);
    assert!(on.counters.stored_bytes.get() < on.counters.original_bytes.get() / 2);
}

#[tokio::test]
async fn what_is_not_compressed_is_stored_as_it_is_and_counted_by_why() {
    const ENCODING: HeaderName = CONTENT_ENCODING;
    let json = (CONTENT_TYPE, "application/json");
    let noise: Vec<u8> = std::iter::successors(Some(1_u64), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1))
    })
    .map(|state| state.to_be_bytes()[0])
    .take(4096)
    .collect();
    let text = text(4096);
    for (setting, headers, body, form) in [
        (Some(ON), vec![json.clone()], &text, BodyForm::Compressed),
        (Some(ON), vec![json.clone(), (ENCODING, "identity")], &text, BodyForm::Compressed),
        (None, vec![json.clone()], &text, BodyForm::Off),
        (Some(ON), vec![json.clone()], &text[..1023].to_vec(), BodyForm::Small),
        (None, vec![json.clone()], &text[..1023].to_vec(), BodyForm::Small),
        (Some(ON), vec![(CONTENT_TYPE, "image/png")], &text, BodyForm::Type),
        (Some(ON), vec![], &text, BodyForm::Type),
        (Some(ON), vec![json.clone(), (ENCODING, "gzip")], &text, BodyForm::Coded),
        (Some(ON), vec![json.clone(), (ENCODING, "br")], &text, BodyForm::Coded),
        (
            Some(ON),
            vec![json.clone(), (ENCODING, "identity"), (ENCODING, "gzip")],
            &text,
            BodyForm::Coded,
        ),
        (Some(ON), vec![json.clone()], &noise, BodyForm::Incompressible),
    ] {
        let packing = packing(setting);
        let entry = entry(&headers, body);
        let (forms, bytes) = stored(&packing, &entry).await;
        assert_eq!(forms, [form], "{headers:?}");
        assert_eq!(packed::stated_length(&bytes).is_some(), form == BodyForm::Compressed);
        let Some(Unpacked::Entry(again, _)) = packing.unpack(&bytes, true).await else {
            panic!("{headers:?}: a miss")
        };
        assert_eq!(again.body, entry.body);
    }
}

#[tokio::test]
async fn where_too_many_are_compressed_an_entry_is_stored_as_it_is_and_short_ones_go_on() {
    let packing = packing(Some(ON));
    let all = u32::try_from(MAX_COMPRESSIONS).expect("a few");
    let taken = packing.compressions.try_acquire_many(all).expect("all places are free");
    assert_eq!(stored(&packing, &json(100_000)).await.0, [BodyForm::Busy]);
    assert_eq!(stored(&packing, &json(10_000)).await.0, [BodyForm::Compressed]);
    drop(taken);
    assert_eq!(stored(&packing, &json(100_000)).await.0, [BodyForm::Compressed]);
}

/// A hit is not behind what is being stored, and what nobody waits for any more has its place until
/// it ends.
#[tokio::test]
async fn hits_have_places_of_their_own() {
    let packing = packing(Some(ON));
    let (_, bytes) = stored(&packing, &json(500_000)).await;
    let most = u32::try_from(packing.compressing.available_permits()).expect("a few");
    let _taken = packing.compressing.acquire_many(most).await.expect("they are open");
    assert!(packing.unpack(&bytes, true).await.is_some());
}

#[tokio::test]
async fn what_cannot_be_decompressed_is_a_miss_and_counted() {
    let packing = packing(Some(ON));
    let larger = Packing { longest: 2 * LONGEST, ..self::packing(Some(ON)) };
    let length = usize::try_from(LONGEST).expect("it fits");
    let (forms, bytes) = stored(&larger, &json(length + 1)).await;
    assert_eq!(forms, [BodyForm::Compressed]);
    assert!(larger.unpack(&bytes, true).await.is_some());
    assert!(packing.unpack(&bytes, true).await.is_none(), "longer than `limits.object`");
    let counters = &packing.counters;
    assert_eq!((counters.decode_errors.get(), counters.decompress_errors.get()), (1, 1));
    for cut in [1, 100, bytes.len() - 30] {
        assert!(packing.unpack(&bytes.slice(..bytes.len() - cut), true).await.is_none());
    }
    assert_eq!((counters.decode_errors.get(), counters.decompress_errors.get()), (4, 1));
    assert_eq!(counters.decompressed.get(), 0);
}
