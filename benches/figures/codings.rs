//! What `[compress]` makes of bodies of this repository: how many bytes, and how long it takes.

use http::StatusCode;
use sidecache::internals::{Coding, EncodeJob};
use tokio::time::Instant;

const FILES: [&str; 3] =
    ["tests/sessions/vectors.json", "src/admin/dashboard/index.html", "src/admin/openapi.json"];

/// The levels of each coding: a quick one, the usual one, thorough ones.
const LEVELS: [(Coding, &[u8]); 3] = [
    (Coding::Zstd, &[3, 6, 9, 12, 19]),
    (Coding::Brotli, &[4, 5, 6, 9, 11]),
    (Coding::Gzip, &[1, 6, 9]),
];

/// How often each is done.
const ROUNDS: usize = 9;

/// Prints a line for each file, coding and level.
pub fn of_files() {
    for file in FILES {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let body = std::fs::read(path).expect("the file is part of the repository");
        for (coding, levels) in LEVELS {
            for &level in levels {
                let chunks = vec![body.clone().into()];
                let job = EncodeJob { coding, level, status: StatusCode::OK, chunks };
                let mut times: Vec<_> = (0..ROUNDS)
                    .map(|_| {
                        let begun = Instant::now();
                        std::hint::black_box(job.run());
                        begun.elapsed()
                    })
                    .collect();
                times.sort_unstable();
                let bytes = job.run().map_or(body.len(), |encoded| encoded.bytes.len());
                #[allow(clippy::cast_precision_loss, reason = "a share for people to read")]
                let share = 100.0 * bytes as f64 / body.len() as f64;
                println!(
                    "{file}, {} bytes: {:>4} {level:>2}: {bytes:>6} bytes, {share:4.1} %, median {:?}",
                    body.len(),
                    coding.as_str(),
                    times[ROUNDS / 2],
                );
            }
        }
    }
}
