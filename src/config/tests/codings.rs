//! `[compress]` and `compress` of routes: their forms, and mistakes in them.

use super::cases::{one, route, warning, with};
use super::parse;
use crate::policy::compress_rule::CompressRule;
use crate::semantics::content_coding::Coding;

const PUBLIC: &str = "[[routes]]\npath = \"/a\"\nttl = \"5m\"\nscope = \"public\"\n";

/// The rule of the first route of a file with these lines.
fn rule(lines: &str) -> Option<CompressRule> {
    let text = with(lines);
    let config = parse(&text).unwrap_or_else(|diagnostics| panic!("{lines}{diagnostics}"));
    let first = config.routes.iter().next().expect("a route");
    first.spec.compress().map(|rule| (**rule).clone())
}

#[test]
fn it_is_off_without_the_table() {
    use Coding::{Brotli, Gzip, Zstd};
    assert_eq!(rule(PUBLIC), None);
    let usual = CompressRule {
        codings: [Zstd, Brotli, Gzip].into(),
        levels: [9, 5, 6],
        min_size: 1024,
        private: false,
    };
    let of = |lines: &str| rule(&format!("[compress]\n{lines}\n{PUBLIC}"));
    assert_eq!(of(""), Some(usual.clone()));
    let given =
        of("codings = [\"gzip\", \"br\"]\nmin_size = \"2KiB\"\nbr_level = 6\ngzip_level = 1");
    let expected =
        CompressRule { codings: [Gzip, Brotli].into(), levels: [9, 6, 1], min_size: 2048, ..usual };
    assert_eq!(given, Some(expected));
}

#[test]
fn a_route_decides_for_itself_and_one_of_one_caller_has_to_ask_for_it() {
    let of = |scope: &str, lines: &str| {
        let route =
            format!("[[routes]]\npath = \"/a\"\nttl = \"5m\"\nscope = \"{scope}\"\n{lines}\n");
        rule(&format!("[compress]\n{route}")).is_some()
    };
    for scope in ["public", "shared"] {
        assert!(of(scope, "") && of(scope, "compress = true") && !of(scope, "compress = false"));
    }
    assert!(!of("private", "") && of("private", "compress = true"));
    assert!(!of("private", "compress = false"));
    // Who decides on the codings by another form of the header decides alone.
    assert!(!of("public", "drop_headers = [\"accept-encoding\"]"));
    assert!(!of("public", "pass_headers = [\"accept-encoding\"]"));
}

#[test]
fn what_it_cannot_be() {
    let wrong = |line: &str, column: usize, text: &str| {
        one(&format!("[compress]\n{line}\n{PUBLIC}"), 2, column, text);
    };
    wrong("codings = [\"gzpi\"]", 12, "did you mean \"gzip\"?");
    wrong("codings = [\"br\", \"br\"]", 18, "listed twice");
    wrong("codings = []", 11, "the list has no coding");
    wrong("codings = \"br\"", 11, "this is a string");
    wrong("zstd_level = 12", 14, "1 to 11");
    wrong("br_level = 0", 12, "1 to 6");
    wrong("br_level = 7", 12, "1 to 6");
    wrong("gzip_level = 10", 14, "1 to 9");
    wrong("min_size = \"1B\"", 12, "64B to 1MiB");
    wrong("min_size = \"2MiB\"", 12, "64B to 1MiB");
    wrong("level = 3", 1, "zstd_level");
    route("compress = \"br\"", 1, 12, "this is a string");
}

#[test]
fn what_has_no_effect_or_costs_more_than_it_brings_is_a_warning() {
    let warns = |lines: &str, line: usize, text: &str| {
        warning(&format!("[compress]\n{lines}"), line, text);
    };
    let small = "[limits]\nobject = \"512KiB\"";
    warns(&format!("min_size = \"1MiB\"\n{small}\n{PUBLIC}"), 2, "nothing is compressed");
    warns("[[routes]]\npath = \"/a\"\nttl = \"5m\"", 1, "compress = true");
    warns(&format!("{PUBLIC}compress = false"), 1, "no route compresses");
    warning(&format!("{PUBLIC}compress = true"), 5, "no effect without [compress]");
}
