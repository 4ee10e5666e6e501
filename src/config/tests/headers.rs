//! Patterns in `drop_headers`.

use super::cases::route;

#[test]
fn a_pattern_contradicts_what_it_matches() {
    route(
        "drop_headers = [\"x-ten*\"]\nkey = [\"tenant\"]",
        1,
        17,
        "the field `tenant` in the key",
    );
    route("drop_headers = [\"x-abc*\"]\npass_headers = [\"X-ABCD\"]", 1, 17, "matches `x-abcd`");
    route("drop_headers = [\"bad name*\"]", 1, 17, "\"x-datadog-*\"");
    route("drop_headers = [\"X-Abc*\", \"x-abc*\"]", 1, 27, "listed twice");
    route("scope = \"shared\"\ndrop_headers = [\"auth*\"]", 2, 17, "authorizes callers");
    route("scope = \"shared\"\ndrop_headers = [\"*okie\"]", 2, 17, "authorizes callers");
}
