//! The bytes that the origin gets on a fill are a function of the key, and of nothing else: two
//! requests that may share a stored response bring the same one.
//!
//! Whatever can differ between two requests is made to differ, on the wire, and the origin is
//! literal about each byte. The cases of the gate are a sample; more of them run by
//!
//! ```sh
//! SIDECACHE_FILL_CASES=1000000 cargo nextest run --profile soak -E 'test(/^flow::fill_bytes::/)'
//! ```

mod requests;
mod stage;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::runtime::Runtime;

use requests::{DECIDING, Difference, FORMS, HARMLESS, ROUTES, Sent, pair};
use stage::{SETUPS, Stage};

/// How many cases the gate runs.
const CASES: u32 = 10_000;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime can be made")
}

#[test]
fn equal_keys_bring_equal_bytes() {
    let cases = std::env::var("SIDECACHE_FILL_CASES").ok();
    let cases = cases
        .map_or(CASES, |cases| cases.parse().expect("SIDECACHE_FILL_CASES is a number of cases"));
    let runtime = runtime();
    let stage = runtime.block_on(Stage::start());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let result = TestRunner::new_with_rng(config, rng).run(&pair(SETUPS.len()), |(one, two)| {
        let compared = runtime.block_on(stage.compare(&one, &two));
        compared.map_err(TestCaseError::fail)
    });
    println!("{:?}", stage.tally);
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, _)) => panic!("{why}"),
        Err(TestError::Abort(why)) => panic!("no cases: {why}"),
    }
    // The property would also hold if no two requests had one key.
    let share = |count: &AtomicUsize| {
        f64::from(u32::try_from(count.load(Ordering::Relaxed)).expect("few")) / f64::from(cases)
    };
    assert!(share(&stage.tally.equal_keys) > 0.3, "{:?}", stage.tally);
    assert!(share(&stage.tally.hits) > 0.1, "{:?}", stage.tally);
    assert!(share(&stage.tally.heads) > 0.01, "{:?}", stage.tally);
}

/// Every difference alone, on every route, so that all that are wrong are told at once.
#[test]
fn no_difference_alone_changes_the_bytes_of_a_key() {
    let runtime = runtime();
    let stage = runtime.block_on(Stage::start());
    let mut differences = Vec::new();
    for (list, add) in [
        (&HARMLESS[..], Difference::Harmless as fn(usize, usize) -> Difference),
        (&DECIDING[..], Difference::Set),
    ] {
        for (header, (_, values)) in list.iter().enumerate() {
            differences.extend((0..values.len()).map(|value| add(header, value)));
        }
    }
    differences.extend([1, 4, 0x5555].map(Difference::HostCase));
    differences.extend([Difference::Escape(1), Difference::Escape(7), Difference::LowerHex]);
    differences.extend(FORMS.map(Difference::Form));
    differences.extend([0, 2].map(Difference::Peer));
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for route in ROUTES {
        let plain = Sent::plain(&format!("{route}caf%C3%A9")).with("Cookie", "lang=de");
        let plain = plain.with("X-Tenant-Id", "acme").with("Accept-Language", "de;q=0.5, en");
        let bare = plain.clone();
        let owned = plain.with("Authorization", "Bearer alice-alice");
        for base in [bare, owned] {
            for difference in &differences {
                let mut other = base.clone();
                difference.apply(&mut other);
                if let Err(why) = runtime.block_on(stage.compare(&base, &other)) {
                    let what = why.lines().next().unwrap_or_default().to_owned();
                    wrong.entry(what).or_default().push(format!("{route} {difference:?}"));
                }
            }
        }
    }
    for (what, cases) in &wrong {
        println!("{what}\n    {} cases, such as {}", cases.len(), cases[0]);
    }
    assert!(wrong.is_empty(), "{} kinds of differences", wrong.len());
}
