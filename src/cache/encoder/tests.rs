//! What is coded gives the body back, and what is not worth it stays as it is.

use std::io::Read as _;

use proptest::prelude::*;

use super::*;

const LEVELS: [u8; 3] = [9, 5, 6];

fn job(coding: Coding, level: u8, chunks: &[&[u8]]) -> EncodeJob {
    let chunks = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect();
    EncodeJob { coding, level, status: StatusCode::OK, chunks }
}

fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    match coding {
        Coding::Zstd => body = zstd::decode_all(bytes).expect("a frame"),
        Coding::Brotli => {
            brotli::Decompressor::new(bytes, 4096).read_to_end(&mut body).map(drop).expect("br");
        }
        Coding::Gzip => {
            flate2::read::GzDecoder::new(bytes).read_to_end(&mut body).map(drop).expect("gzip");
        }
    }
    body
}

/// Members of a list that resemble one another.
fn text(length: usize) -> Vec<u8> {
    let members =
        (0..).flat_map(|id: u32| format!("{{\"id\":{id},\"name\":\"n{id}\"}},").into_bytes());
    members.take(length).collect()
}

/// Bytes in which nothing comes again.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

#[test]
fn every_coding_and_level_gives_the_body_back() {
    let body = text(40_000);
    for (coding, most) in Coding::ALL.into_iter().zip([19, 11, 9]) {
        for level in 1..=most {
            let encoded = job(coding, level, &[&body[..7], b"", &body[7..]]).run().expect("less");
            assert_eq!(decoded(coding, &encoded.bytes), body, "{coding:?} {level}");
            assert!(encoded.bytes.len() * 5 < body.len(), "{coding:?} {level}");
            assert_eq!(encoded.length, 40_000);
            let mut digester = Digester::new(StatusCode::OK);
            digester.update(&body);
            assert_eq!(encoded.digest, digester.finish());
        }
    }
}

#[test]
fn what_would_be_hardly_smaller_stays_as_it_is() {
    for (coding, level) in Coding::ALL.into_iter().zip(LEVELS) {
        for body in [noise(10_000), noise(3), Vec::new()] {
            assert!(job(coding, level, &[&body]).run().is_none(), "{coding:?} {}", body.len());
        }
    }
}

/// RFC 8878 and RFC 9659: browsers refuse frames that need more memory than 8 MB.
#[test]
fn frames_of_zstd_need_no_more_memory_than_browsers_have() {
    let body = text(20 << 20);
    for level in [1, 6, 19] {
        let frame = job(Coding::Zstd, level, &[&body[..9 << 20], &body[9 << 20..]]).run();
        let frame = frame.expect("less").bytes;
        let mut decoder = zstd::Decoder::new(&frame[..]).expect("a frame");
        decoder.window_log_max(23).expect("a window");
        let mut again = Vec::new();
        decoder.read_to_end(&mut again).expect("it needs no more");
        assert_eq!(again.len(), body.len());
    }
}

#[tokio::test]
async fn what_is_done_is_counted() {
    let encoder = Encoder::new(Clock::system());
    for (coding, level) in Coding::ALL.into_iter().zip(LEVELS) {
        for length in [1500, 50_000] {
            let body = text(length);
            let job = job(coding, level, &[&body]);
            assert_eq!(job.takes_long(), length == 50_000);
            let coded = encoder.encode(job).await.expect("less");
            assert_eq!(decoded(coding, &coded.bytes), body);
        }
        let counters = encoder.counters.of(coding);
        assert_eq!((counters.bodies.get(), counters.original_bytes.get()), (2, 51_500));
        assert!(counters.coded_bytes.get() < 15_000);
        let body = noise(50_000);
        let refused = encoder.encode(job(coding, level, &[&body])).await;
        assert_eq!(refused.err(), Some(PlainReason::Incompressible));
        assert_eq!(counters.bodies.get(), 2);
    }
}

/// A fill goes on until its response is stored, so nothing waits for long.
#[tokio::test]
async fn with_too_many_others_a_body_stays_as_it_is() {
    let encoder = Encoder::new(Clock::system());
    let places = u32::try_from(encoder.running.available_permits()).expect("few");
    let all = encoder.running.try_acquire_many(places).expect("free");
    let long = || job(Coding::Gzip, 6, &[&text(50_000)]);
    assert_eq!(encoder.encode(long()).await.err(), Some(PlainReason::Busy));
    assert!(encoder.encode(job(Coding::Gzip, 6, &[&text(1500)])).await.is_ok(), "no place needed");
    drop(all);
    assert!(encoder.encode(long()).await.is_ok());
}

proptest! {
    #[test]
    fn any_body_comes_back(
        which in 0..3_usize,
        chunks in prop::collection::vec(prop::collection::vec(0..4_u8, 0..300), 0..6),
    ) {
        let coding = Coding::ALL[which];
        let pieces: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        if let Some(encoded) = job(coding, LEVELS[which], &pieces).run() {
            prop_assert_eq!(decoded(coding, &encoded.bytes), chunks.concat());
        }
    }
}
