//! Gives mutated inputs to each target of `src/fuzz.rs`, on stable Rust: bytes are flipped,
//! repeated, cut, and put together of a corpus and of the target's own words. No coverage guides it,
//! so that what it lacks in aim it makes up in numbers.
//!
//! ```sh
//! cargo run --release --example fuzz -- --seconds 60            # all targets, a minute in all
//! cargo run --release --example fuzz -- --seconds 36000 jwt     # one of them, ten hours
//! cargo run --release --example fuzz -- --input FILE jwt        # one input
//! ```
//!
//! An input that breaks an invariant is written to `target/fuzz`, and named. Exit codes: 0 nothing
//! was found, 1 something was, 64 unknown flag or target.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sidecache::app::Clock;
use sidecache::internals::{FuzzTarget, TARGETS};

/// The longest input, in bytes.
const MAX_INPUT: usize = 4096;
/// How long one input may take.
const MAX_TIME: Duration = Duration::from_secs(2);
/// How many inputs run between two looks at the clock.
const BATCH: u32 = 64;

/// Gives strange inputs to what reads bytes of strangers.
#[derive(Parser)]
struct Arguments {
    /// How long, for all targets together.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the inputs begin. The same number gives the same inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this input alone.
    #[arg(long)]
    input: Option<std::path::PathBuf>,
    /// The targets; all without any.
    targets: Vec<String>,
}

/// Random numbers of a seed (xorshift64*; Vigna, 2016): the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below this one, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap_or(0) % end
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let unknown = |name: &&String| !TARGETS.iter().any(|target| target.name == **name);
    if let Some(name) = arguments.targets.iter().find(unknown) {
        let all: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        say(&format!("{name} is no target; allowed: {}", all.join(", ")));
        return ExitCode::from(64);
    }
    let is_chosen = |target: &&FuzzTarget| {
        arguments.targets.is_empty() || arguments.targets.iter().any(|name| name == target.name)
    };
    let chosen: Vec<&FuzzTarget> = TARGETS.iter().filter(is_chosen).collect();
    // What a target says of a broken invariant is told once, below.
    panic::set_hook(Box::new(|_| {}));
    if let Some(file) = &arguments.input {
        let Ok(input) = std::fs::read(file) else {
            say(&format!("{} cannot be read", file.display()));
            return ExitCode::from(64);
        };
        let broken = chosen.iter().filter_map(|target| broken(target, &input));
        let broken: Vec<String> = broken.collect();
        for why in &broken {
            say(why);
        }
        return ExitCode::from(u8::from(!broken.is_empty()));
    }
    let time = Duration::from_secs(arguments.seconds) / u32::try_from(chosen.len()).unwrap_or(1);
    let failed = chosen.iter().filter(|target| !fuzz(target, arguments.seed, time)).count();
    ExitCode::from(u8::from(failed > 0))
}

/// Runs a target for this long; false if an input has broken it.
fn fuzz(target: &FuzzTarget, seed: u64, time: Duration) -> bool {
    let mut corpus = corpus(target.name);
    corpus.extend(target.words.iter().map(|word| word.as_bytes().to_vec()));
    let mut name = DefaultHasher::new();
    target.name.hash(&mut name);
    // Never 0, from which nothing comes.
    let mut random = Random((seed ^ name.finish()) | 1);
    let (clock, mut runs) = (Clock::system(), 0_u64);
    let began = clock.now();
    for input in &corpus {
        if let Some(why) = broken(target, input) {
            return report(target, input, &why);
        }
    }
    while clock.now() - began < time {
        for _ in 0..BATCH {
            let input = mutated(&corpus, target.words, &mut random);
            runs += 1;
            if let Some(why) = broken(target, &input) {
                return report(target, &input, &why);
            }
        }
    }
    let seconds = (clock.now() - began).as_secs().max(1);
    let rate = runs / seconds;
    say(&format!("{}: {runs} inputs, {rate} a second, seed {seed}", target.name));
    true
}

/// What an input has broken.
fn broken(target: &FuzzTarget, input: &[u8]) -> Option<String> {
    let clock = Clock::system();
    let began = clock.now();
    let done = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = clock.now() - began;
    match done {
        Ok(()) if took > MAX_TIME => Some(format!("{}: it took {took:?}", target.name)),
        Ok(()) => None,
        Err(why) => {
            let text = why.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| why.downcast_ref::<&str>().copied());
            Some(format!("{}: {}", target.name, text.unwrap_or("a panic")))
        }
    }
}

fn report(target: &FuzzTarget, input: &[u8], why: &str) -> bool {
    let mut hash = DefaultHasher::new();
    input.hash(&mut hash);
    let file = format!("target/fuzz/{}-{:016x}", target.name, hash.finish());
    let written =
        std::fs::create_dir_all("target/fuzz").and_then(|()| std::fs::write(&file, input));
    say(why);
    match written {
        Ok(()) => say(&format!("  cargo run --example fuzz -- --input {file} {}", target.name)),
        Err(error) => say(&format!("  {file} cannot be written: {error}; {input:?}")),
    }
    false
}

/// The inputs from which those of a target are made.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
    // In whatever order the folder lists them, a seed gives the same inputs.
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// An input of the corpus, changed a few times.
fn mutated(corpus: &[Vec<u8>], words: &[&str], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        let end = at + random.below(input.len() - at + 1);
        match random.below(9) {
            0 if !input.is_empty() => {
                let place = at.min(input.len() - 1);
                input[place] ^= 1 << random.below(8);
            }
            1 if !input.is_empty() => {
                let place = at.min(input.len() - 1);
                input[place] = random.byte();
            }
            2 => input.insert(at, random.byte()),
            3 => drop(input.drain(at..end)),
            4 => {
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            5 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                input.splice(at..end, other[from..].iter().copied());
            }
            6 => input.truncate(at),
            _ => {
                let word = words[random.below(words.len())].as_bytes();
                input.splice(at..at, word.iter().copied());
            }
        }
    }
    input.truncate(MAX_INPUT);
    input
}

#[allow(clippy::print_stdout, reason = "this is what it is run for")]
fn say(text: &str) {
    println!("{text}");
}
