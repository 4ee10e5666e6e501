//! Entries packed and unpacked, and bytes that are none.

use super::*;
use crate::cache::entry::head::StoredHead;
use proptest::prelude::*;

/// The longest body that is unpacked here.
const LONGEST: u64 = 1 << 16;

fn sample() -> (Entry, Stamp) {
    with_body(b"{\"a\":1}")
}

fn with_body(body: &[u8]) -> (Entry, Stamp) {
    let mut headers = HeaderMap::new();
    headers.append("content-type", HeaderValue::from_static("application/json"));
    headers.append("link", HeaderValue::from_static("<a>"));
    headers.append("link", HeaderValue::from_static("<b>"));
    let times = Times {
        received: Wall(1_700_000_000_123),
        initial_age: Duration::from_millis(7),
        lifetime: Duration::from_mins(1),
    };
    let [while_revalidate, if_error, unreachable, keep, fetch_duration] =
        [1, 2, 3, 4, 5].map(Duration::from_secs);
    let leeway = Leeway { while_revalidate, if_error, unreachable, keep };
    let metadata =
        EntryMetadata { times, leeway, fetch_duration, response_tags: [Tag::new("a")].into() };
    let entry = Entry::compact(
        b"canonical key",
        StatusCode::OK,
        &headers,
        &[Bytes::copy_from_slice(body)],
        metadata,
    );
    let stamp = Stamp {
        generation: Nonce([1; 16]),
        tags: [(Tag::new("a"), Nonce([2; 16])), (Tag::new("b"), Nonce([3; 16]))].into(),
    };
    (entry, stamp)
}

fn compressed(body: &[u8], seal: &Seal) -> (Entry, Stamp, Bytes) {
    let (entry, stamp) = with_body(body);
    let form = CompressedBody::of(body, 3).expect("it becomes smaller");
    let packed = pack_compressed((&entry, &form), &stamp, entry.times.received, seal);
    (entry, stamp, packed)
}

/// A compressed entry with other bytes in place of its body, correctly sealed.
fn with_frame(state: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let seal = Seal::default();
    let (_, _, packed) = compressed(TEXT.repeat(9).as_bytes(), &seal);
    let at = body_at(&packed).expect("a body");
    let mut body = packed[at..].to_vec();
    state(&mut body);
    seal_bytes(COMPRESSED, &packed[HEAD_BYTES..at], &body, &seal)
}

const TEXT: &str = "{\"id\":17,\"name\":\"some text that comes again\"}";

fn unpacked(packed: &Bytes, seal: &Seal) -> (Entry, Stamp) {
    match unpack(packed, seal, LONGEST).expect("an entry") {
        Unpacked::Entry(entry, stamp) => (*entry, stamp),
        Unpacked::Vary(_) => panic!("a mark"),
    }
}

#[test]
fn an_entry_is_unpacked_as_it_was_packed() {
    for seal in [Seal::default(), Seal::keyed(b"secret")] {
        let (entry, stamp) = sample();
        let packed = pack(&entry, &stamp, entry.times.received, &seal);
        let (again, stamp_again) = unpacked(&packed, &seal);
        assert_eq!(stamp, stamp_again);
        assert_eq!(again.digest(), entry.digest(), "computed anew");
        assert_eq!(
            (again.headers(), &again.key, again.status, &again.body),
            (entry.headers(), &entry.key, entry.status, &entry.body)
        );
        assert_eq!(
            (again.times, again.leeway, again.fetch_duration()),
            (entry.times, entry.leeway, entry.fetch_duration())
        );
        assert_eq!(
            again.response_tags[..],
            [Tag::new("a"), Tag::new("b")],
            "all tags, since the stamp does not say which came with the response"
        );
    }
}

#[test]
fn the_body_is_a_slice_of_the_packed_bytes() {
    let (entry, stamp) = sample();
    let packed = pack(&entry, &stamp, entry.times.received, &Seal::default());
    let (again, _) = unpacked(&packed, &Seal::default());
    let range = packed.as_ptr_range();
    assert!(range.contains(&again.body.as_ptr()));
}

/// Version 2 counted by the clock of the sidecar that wrote it.
#[test]
fn the_fixture_of_version_2_is_a_miss() {
    let fixture = Bytes::from_static(include_bytes!("../fixtures/entry-v2.bin"));
    assert_eq!(unpack(&fixture, &Seal::default(), LONGEST).err(), Some(DecodeError::Version));
}

/// Written by version 3. It must stay readable for as long as version 3 is accepted.
#[test]
fn the_fixture_of_version_3_is_unpacked() {
    let fixture = include_bytes!("../fixtures/entry-v3.bin");
    let (entry, stamp) = unpacked(&Bytes::from_static(fixture), &Seal::default());
    let (expected, expected_stamp) = sample();
    assert_eq!(
        (&entry.key, &entry.body, entry.times, stamp),
        (&expected.key, &expected.body, expected.times, expected_stamp)
    );
    assert_eq!(
        (entry.leeway, entry.fetch_duration()),
        (expected.leeway, expected.fetch_duration())
    );
}

/// A sidecar of before there was compression reads what one without it writes, and the other way
/// around.
#[test]
fn r1350_a_plain_entry_has_the_bytes_that_it_had_before_there_was_compression() {
    let (entry, stamp) = sample();
    let packed = pack(&entry, &stamp, entry.times.received, &Seal::default());
    assert_eq!(packed[..], include_bytes!("../fixtures/entry-v3.bin")[..]);
}

/// It must stay readable for as long as version 3 is accepted.
#[test]
fn the_fixture_of_a_compressed_entry_is_unpacked() {
    let fixture = Bytes::from_static(include_bytes!("../fixtures/entry-v3-compressed.bin"));
    let (entry, stamp) = unpacked(&fixture, &Seal::default());
    let (expected, expected_stamp) = sample();
    assert_eq!(
        (entry.headers(), &entry.key, &entry.body, stamp),
        (expected.headers(), &expected.key, &expected.body, expected_stamp)
    );
}

/// What the cache has coded for clients, as it is stored.
fn coded() -> (Entry, Stamp) {
    let (plain, stamp) = with_body(b"coded bytes");
    let original = OriginalForm { length: 99, digest: [7; 16], had_strong_tag: true };
    (plain.with_original(original), stamp)
}

#[test]
fn what_a_coded_entry_was_before_is_unpacked_with_it() {
    let (entry, stamp) = coded();
    let packed = pack(&entry, &stamp, entry.times.received, &Seal::default());
    assert_eq!(stated_length(&packed), None, "its body is stored as it is served");
    let (again, _) = unpacked(&packed, &Seal::default());
    assert_eq!((again.original(), &again.body), (entry.original(), &entry.body));
    assert_eq!(again.content_digest(), [7; 16], "as the origin sent it");
    assert_eq!(again.digest(), entry.digest());
    let plain = pack(&sample().0, &stamp, entry.times.received, &Seal::default());
    assert!(unpacked(&plain, &Seal::default()).0.original().is_none());
}

/// It must stay readable for as long as version 3 is accepted. A sidecar of before there was any
/// coding for clients knows no such kind, and makes no key that finds one.
#[test]
fn the_fixture_of_a_coded_entry_is_unpacked() {
    let (expected, stamp) = coded();
    let fixture = include_bytes!("../fixtures/entry-v3-coded.bin");
    let packed = pack(&expected, &stamp, expected.times.received, &Seal::default());
    assert_eq!(packed[..], fixture[..]);
    let (entry, found) = unpacked(&Bytes::from_static(fixture), &Seal::default());
    assert_eq!((entry.original(), entry.headers()), (expected.original(), expected.headers()));
    assert_eq!((&entry.key, &entry.body, found), (&expected.key, &expected.body, stamp));
    let at = body_at(fixture).expect("a body");
    for (kind, meta) in [
        (ENTRY, fixture[HEAD_BYTES..at].to_vec()),
        (CODED, fixture[HEAD_BYTES..at - 1].to_vec()),
        (CODED, [&fixture[HEAD_BYTES..at - 1], &[2]].concat()),
        (CODED, [&fixture[HEAD_BYTES..at], &[0]].concat()),
    ] {
        let other = seal_bytes(kind, &meta, &fixture[at..], &Seal::default());
        assert_eq!(unpack(&other, &Seal::default(), LONGEST).err(), Some(DecodeError::Shape));
    }
}

#[test]
fn a_compressed_entry_is_unpacked_into_memory_of_its_own() {
    let (entry, stamp, packed) = compressed(TEXT.repeat(30).as_bytes(), &Seal::default());
    assert_eq!(stated_length(&packed), Some(entry.body.len() as u64));
    let (again, _) = unpacked(&packed, &Seal::default());
    let range = packed.as_ptr_range();
    assert!(!range.contains(&again.body.as_ptr()) && !range.contains(&again.key.as_ptr()));
    let plain = pack(&entry, &stamp, entry.times.received, &Seal::default());
    assert_eq!(stated_length(&plain), None);
    let (of_plain, _) = unpacked(&plain, &Seal::default());
    assert_eq!(again.weight(), of_plain.weight(), "it weighs as much in memory");
    assert!(packed.len() < plain.len() / 2, "{} of {}", packed.len(), plain.len());
}

#[test]
fn what_becomes_hardly_smaller_is_not_compressed() {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(5000)
    .collect();
    for body in [&b""[..], b"{\"a\":1}", &noise] {
        assert!(CompressedBody::of(body, 3).is_none(), "{}", body.len());
    }
}

/// Somebody who can write to a Redis without a secret plants a few bytes that become gigabytes.
#[test]
fn r1351_a_body_that_is_not_what_it_states_is_a_miss_and_takes_no_memory() {
    let length = |stated: u64| with_frame(|body| body[..8].copy_from_slice(&stated.to_be_bytes()));
    let true_length = TEXT.len() as u64 * 9;
    assert!(unpack(&length(true_length), &Seal::default(), LONGEST).is_ok());
    for stated in [0, 1, true_length - 1, true_length + 1, LONGEST, LONGEST + 1, 1 << 40, u64::MAX]
    {
        let found = unpack(&length(stated), &Seal::default(), LONGEST).err();
        assert_eq!(found, Some(DecodeError::Compression), "{stated}");
    }
    let short = unpack(&length(true_length), &Seal::default(), true_length - 1).err();
    assert_eq!(short, Some(DecodeError::Compression), "longer than is allowed");
    for (packed, error) in [
        (with_frame(|body| body.truncate(7)), DecodeError::Shape),
        (with_frame(|body| body.truncate(8)), DecodeError::Compression),
        (with_frame(|body| body.truncate(body.len() - 1)), DecodeError::Compression),
        (with_frame(|body| body.push(0)), DecodeError::Compression),
        (with_frame(|body| body[8] ^= 1), DecodeError::Compression),
        (with_frame(|body| body.extend_from_within(8..)), DecodeError::Compression),
    ] {
        assert_eq!(unpack(&packed, &Seal::default(), LONGEST).err(), Some(error));
    }
}

/// As sidecars of before there was compression read a compressed one.
#[test]
fn a_kind_that_is_not_known_is_a_miss() {
    let packed = seal_bytes(b'Y', b"meta", b"body", &Seal::default());
    assert_eq!(unpack(&packed, &Seal::default(), LONGEST).err(), Some(DecodeError::Shape));
}

#[test]
fn entries_sealed_with_another_secret_are_rejected() {
    let (entry, stamp) = sample();
    let plain = pack(&entry, &stamp, entry.times.received, &Seal::default());
    let sealed = pack(&entry, &stamp, entry.times.received, &Seal::keyed(b"one"));
    for (packed, seal) in
        [(&plain, Seal::keyed(b"one")), (&sealed, Seal::keyed(b"two")), (&sealed, Seal::default())]
    {
        assert_eq!(unpack(packed, &seal, LONGEST).err(), Some(DecodeError::Integrity));
    }
}

/// A client that is told a greater length waits for bytes that never come.
#[test]
fn a_length_that_does_not_fit_the_body_is_a_miss() {
    let seal = Seal::default();
    for length in ["0", "6", "8", "99", "x", "7, 7"] {
        let (mut entry, stamp) = sample();
        let mut headers = entry.headers();
        headers.insert("content-length", HeaderValue::from_static(length));
        entry.head = StoredHead::alone(headers);
        let packed = pack(&entry, &stamp, entry.times.received, &seal);
        assert_eq!(unpack(&packed, &seal, LONGEST).err(), Some(DecodeError::Shape), "{length}");
    }
}

#[test]
fn another_version_is_a_miss() {
    let (entry, stamp) = sample();
    let mut packed = pack(&entry, &stamp, entry.times.received, &Seal::default()).to_vec();
    packed[3] = VERSION - 1;
    assert_eq!(
        unpack(&Bytes::from(packed), &Seal::default(), LONGEST).err(),
        Some(DecodeError::Version)
    );
    assert_eq!(
        unpack(&Bytes::from_static(b"{}"), &Seal::default(), LONGEST).err(),
        Some(DecodeError::Foreign)
    );
}

proptest! {
    #[test]
    fn a_compressed_entry_is_unpacked_as_it_was_packed(
        words in proptest::collection::vec("[a-z<>{}\"]{1,12}", 1..60),
        times in 2usize..30,
        level in 1u8..10,
        secret in any::<bool>(),
    ) {
        let seal = if secret { Seal::keyed(b"secret") } else { Seal::default() };
        let body = words.join(" ").repeat(times);
        let (entry, stamp) = with_body(body.as_bytes());
        if let Some(form) = CompressedBody::of(body.as_bytes(), level) {
            prop_assert!(form.as_bytes().len() < body.len());
            let packed = pack_compressed((&entry, &form), &stamp, entry.times.received, &seal);
            let (again, stamp_again) = unpacked(&packed, &seal);
            prop_assert_eq!((&again.body[..], stamp_again), (body.as_bytes(), stamp));
            prop_assert_eq!((again.headers(), &again.key), (entry.headers(), &entry.key));
        }
    }

    #[test]
    fn a_broken_frame_under_a_right_seal_is_no_longer_than_it_states(
        at in 8usize..200,
        byte in any::<u8>(),
        cut in 0usize..50,
    ) {
        let packed = with_frame(|body| {
            let at = at.min(body.len() - 1);
            body[at] = byte;
            body.truncate(body.len().saturating_sub(cut).max(8));
        });
        if let Ok(Unpacked::Entry(entry, _)) = unpack(&packed, &Seal::default(), LONGEST) {
            prop_assert_eq!(entry.body.len(), TEXT.len() * 9);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_compressed_entry_is_noticed(at in 0usize..400, bit in 0u8..8) {
        let mut packed = with_frame(|_| {}).to_vec();
        let at = at % packed.len();
        packed[at] ^= 1 << bit;
        prop_assert!(unpack(&Bytes::from(packed), &Seal::default(), LONGEST).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed(at in 0usize..200, bit in 0u8..8) {
        let (entry, stamp) = sample();
        let mut packed = pack(&entry, &stamp, entry.times.received, &Seal::default()).to_vec();
        let at = at % packed.len();
        packed[at] ^= 1 << bit;
        prop_assert!(unpack(&Bytes::from(packed), &Seal::default(), LONGEST).is_err());
    }

    #[test]
    fn no_bytes_from_redis_cause_a_panic(
        meta in proptest::collection::vec(any::<u8>(), 0..200),
        kind in prop_oneof![Just(ENTRY), Just(VARY), Just(COMPRESSED), any::<u8>()],
    ) {
        // Correctly sealed, so that the decoder has to check every length itself.
        let packed = seal_bytes(kind, &meta, b"body", &Seal::default());
        let _ = unpack(&packed, &Seal::default(), LONGEST);
    }

    #[test]
    fn a_shortened_entry_is_noticed(cut in 1usize..200) {
        let (entry, stamp) = sample();
        let packed = pack(&entry, &stamp, entry.times.received, &Seal::default());
        let short = packed.slice(..packed.len() - cut.min(packed.len()));
        prop_assert!(unpack(&short, &Seal::default(), LONGEST).is_err());
    }
}
