//! `compress` of `[redis]`: its forms, and mistakes in it.

use super::cases::{one, warning, with};
use super::parse;
use crate::redis::BodyCompression;

const REDIS: &str = "[redis]\nurl = \"redis://h\"\n";

fn compress(lines: &str) -> Option<BodyCompression> {
    let text = with(&format!("{REDIS}{lines}"));
    let config = parse(&text).unwrap_or_else(|diagnostics| panic!("{lines}{diagnostics}"));
    config.redis.expect("there is a Redis").compress
}

#[test]
fn it_is_off_a_word_or_a_table() {
    let usual = BodyCompression { level: 3, min_size: 1024 };
    for (lines, expected) in [
        ("", None),
        ("compress = \"off\"", None),
        ("compress = { method = \"off\" }", None),
        ("compress = \"zstd\"", Some(usual)),
        ("compress = { method = \"zstd\" }", Some(usual)),
        ("compress = {}", Some(usual)),
        ("compress.level = 6", Some(BodyCompression { level: 6, ..usual })),
        (
            "compress = { method = \"zstd\", level = 1, min_size = \"64B\" }",
            Some(BodyCompression { level: 1, min_size: 64 }),
        ),
    ] {
        assert_eq!(compress(lines), expected, "{lines}");
    }
}

#[test]
fn what_it_cannot_be() {
    let wrong = |value: &str, column: usize, text: &str| {
        one(&format!("{REDIS}compress = {value}"), 3, column, text);
    };
    wrong("\"zsdt\"", 12, "did you mean \"zstd\"?");
    wrong("\"gzip\"", 12, "\"zstd\" or \"off\"");
    wrong("true", 12, "min_size = \"1KiB\"");
    wrong("3", 12, "min_size = \"1KiB\"");
    wrong("{ level = 0 }", 22, "1 to 19");
    wrong("{ level = 20 }", 22, "1 to 19");
    wrong("{ level = \"6\" }", 22, "remove the quotes");
    wrong("{ min_size = 1024 }", 25, "\"1024B\"");
    wrong("{ min_size = \"1B\" }", 25, "64B to 16GiB");
    wrong("{ min_sise = \"1KiB\" }", 14, "min_size");
}

#[test]
fn what_costs_more_than_it_brings_or_brings_nothing_is_a_warning() {
    let warns = |lines: &str, line: usize, text: &str| {
        warning(&format!("{REDIS}{lines}"), line, text);
    };
    warns("compress = { level = 10 }", 3, "level = 3, or at most 9");
    warns("compress = { level = 19 }", 3, "many times as long");
    warns("compress = { method = \"off\", level = 6 }", 3, "`level` has no effect");
    warns("compress = { method = \"off\", min_size = \"2KiB\" }", 3, "`min_size` has no effect");
    warns("compress = { min_size = \"9MiB\" }", 3, "nothing is compressed");
    let text = with(&format!("{REDIS}compress = {{ level = 9, min_size = \"8MiB\" }}"));
    let config = parse(&text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert!(config.warnings.iter().all(|warning| !warning.to_string().contains("compress =")));
}
