//! Samples that show that each check can fail, and fails only where it should.

use super::*;

/// The problems of a file that is otherwise in order.
fn problems(path: &str, code: &str) -> Vec<Finding> {
    check(path, &format!("//! A sample.\n{code}"))
}

#[track_caller]
fn assert_bad(path: &str, code: &str, expected: &str) {
    let problems = problems(path, code);
    assert!(
        problems.len() == 1 && problems[0].1.contains(expected),
        "{path}: {code}\n{problems:?}"
    );
}

#[track_caller]
fn assert_good(path: &str, code: &str) {
    let problems = problems(path, code);
    assert!(problems.is_empty(), "{path}: {code}\n{problems:?}");
}

#[test]
fn imports_go_down() {
    assert_good("proxy.rs", "use crate::cache::Store;\nuse crate::{policy::Key, outcome};");
    assert_good("cache/store.rs", "use crate::coherence::Tags;\nuse crate::cache::Entry;");
    assert_bad(
        "redis/node.rs",
        "use crate::proxy::Proxy;",
        "`redis` (clients) imports `proxy` (flow)",
    );
    assert_bad("clock.rs", "pub(crate) use crate::policy::Key;", "imports `policy`");
    assert_bad("policy.rs", "fn f() {\n    crate::upstream::send();\n}", "imports `upstream`");
    assert_bad(
        "policy.rs",
        "use crate::{\n    outcome::{Outcome, server},\n    server::{Server, policy},\n};",
        "imports `server`",
    );
    assert_bad("policy.rs", "use super::server;", "imports `server`");
    assert_good("redis/node.rs", "use super::proxy;");
    assert_good("proxy.rs", "use crate::VERSION;\nuse crate::{self as root, cache};");
}

#[test]
fn folders_of_one_layer_do_not_know_each_other() {
    assert_bad("admin.rs", "use crate::server::Server;", "beside it");
    assert_bad("redis.rs", "use crate::upstream::Pool;", "beside it");
    assert_good("clock.rs", "use crate::units::Size;");
}

#[test]
fn circles_are_found_through_re_exports() {
    let parent = "use self::child::Child;\npub struct Shared;\nmod child;\nmod leaf;\npub use \
        self::leaf::Leaf;";
    let leaf = ("a/leaf.rs", "pub struct Leaf;");
    let found = |child| circles::circles(&[("a.rs", parent), ("a/child.rs", child), leaf]);
    assert_eq!(found("use super::Shared;"), [["a.rs", "a/child.rs"]]);
    assert_eq!(found("fn f() { crate::a::Shared; }"), [["a.rs", "a/child.rs"]]);
    assert_eq!(found("use super::{Leaf, super::b::C};"), Vec::<Vec<String>>::new());
    let three = [
        ("a.rs", "use crate::b;\nfn f() { b::g(); }"),
        ("b.rs", "use crate::{c::{C, D}, d};"),
        ("c.rs", "use crate::a as other;\nfn f(a: crate::a::A) {}"),
    ];
    assert_eq!(circles::circles(&three), [["a.rs", "b.rs", "c.rs"]]);
}

#[test]
fn types_are_read_at_the_top_of_a_file() {
    let code = "pub struct A;\npub(crate) enum B {}\n    struct Inner;\ntype C = A;\nimpl A \
        {\n    type D = A;\n}";
    assert_eq!(types(code), ["A", "B", "C"]);
}

#[test]
fn lines_have_a_width() {
    assert_good("proxy.rs", &format!("//{}", "é".repeat(MAX_WIDTH - 2)));
    assert_bad("proxy.rs", &format!("//{}", "é".repeat(MAX_WIDTH - 1)), "wider than 100");
}

#[test]
fn the_old_dialect_is_found() {
    for (word, instead) in dialect::DIALECT {
        assert_bad("proxy.rs", &format!("fn f() {{ a({word}); }}"), instead);
        assert_good("proxy.rs", &format!("// {word}\nfn f() {{ a{word}b(); }}"));
    }
}

#[test]
fn the_map_and_the_start_see_every_layer() {
    assert_good("lib.rs", "pub use crate::server::Server;");
    assert_good("main.rs", "use crate::anything;");
}

#[test]
fn every_module_has_a_layer() {
    assert_bad("helpers.rs", "", "`helpers` is in no layer");
    assert_bad("proxy.rs", "use crate::helpers::Help;", "`helpers` is in no layer");
}

#[test]
fn a_line_is_told() {
    assert_eq!(problems("policy.rs", "\n\nuse crate::{\n    server::Server,\n};")[0].0, 4);
    assert_eq!(problems("policy.rs", "\nlet a = 'x'; // {\nlet b = c.unwrap();")[0].0, 4);
}

#[test]
fn tests_are_exempt_and_what_follows_them_is_not() {
    let tests = "#[cfg(test)]\nmod tests {\n    use crate::server::Server;\n    fn f() \
        { g().unwrap(); }\n}\n";
    assert_good("policy.rs", tests);
    assert_bad("policy.rs", &format!("{tests}fn h() {{ g().unwrap(); }}"), ".unwrap()");
    assert_good("policy/tests.rs", "use crate::server::Server;\nfn f() { g().unwrap(); }");
    assert_bad("policy.rs", "#[cfg(test)]\nmod tests;\nfn h() { g().unwrap(); }", ".unwrap()");
}

#[test]
fn files_open_with_their_story() {
    assert_eq!(check("policy.rs", "use std::fmt;\n").len(), 1);
    assert_eq!(check("policy.rs", "// A comment.\n").len(), 1);
    assert_eq!(check("policy.rs", "//! A story.\n"), []);
}

#[test]
fn files_end_in_time() {
    assert_good("policy.rs", &"// line\n".repeat(MAX_FILE_LINES - 1));
    assert_bad("policy.rs", &"// line\n".repeat(MAX_FILE_LINES), "501 lines");
}

#[test]
fn functions_end_in_time() {
    let function = |lines: usize| {
        format!("fn long(a: [u8; 2]) {{\n{}}}\n", "    f('{', \"}\"); // }\n".repeat(lines - 2))
    };
    assert_good("policy.rs", &function(MAX_FUNCTION_LINES).repeat(2));
    assert_bad("policy.rs", &function(MAX_FUNCTION_LINES + 1), "`long` has 81 lines");
    let method = "    fn short(&self);\n".repeat(100);
    assert_good("policy.rs", &format!("trait T {{\n{method}}}\n"));
}

#[test]
fn banned_words_are_found() {
    for ban in BANS {
        let path = if ban.word == "tokio::" { "policy.rs" } else { "proxy.rs" };
        assert_bad(path, &format!("fn f() {{ a {} }}", ban.word), ban.instead);
        let in_test = format!("#[cfg(test)]\nmod tests {{\n    fn f() {{ a {} }}\n}}", ban.word);
        match ban.applies {
            Applies::Production => assert_good(path, &in_test),
            Applies::Code | Applies::Text => assert_bad(path, &in_test, ban.instead),
        }
        let in_comment = format!("// a {}", ban.word);
        match ban.applies {
            Applies::Text => assert_bad(path, &in_comment, ban.instead),
            Applies::Production | Applies::Code => assert_good(path, &in_comment),
        }
    }
}

#[test]
fn banned_words_have_their_places() {
    assert_good("clock.rs", "fn f() { Instant::now(); SystemTime::now(); }");
    assert_good("redis.rs", "use fred::prelude::*;");
    assert_good("redis/health.rs", "use fred::prelude::*;");
    assert_good("cli.rs", "fn f() { println!(); }");
    assert_good("config/diagnostics.rs", "fn f() { eprintln!(); }");
    assert_good("cache.rs", "use tokio::sync::Notify;");
    assert_bad("cache.rs", "fn f() { tokio::time::Instant::now(); }", "clock.now()");
}

#[test]
fn only_whole_words_of_code_count() {
    assert_good("proxy.rs", "fn is_unsafe_method() { alfred::x(); MyRwLocked; }");
    assert_good(
        "proxy.rs",
        "/// An unsafe method (RFC 9110).\nfn f() { a(\"unsafe \\\" .unwrap()\"); }",
    );
    assert_good(
        "proxy.rs",
        "fn f<'a>(b: &'a str) \
        { a(r#\"unsafe \" todo!()\"#, br\"unsafe\", b\"unsafe\", '\"', '\\'', 'é'); }",
    );
    assert_good("proxy.rs", "/* unsafe /* nested */ unsafe */");
    assert_bad("proxy.rs", "fn f() { a(\"//\"); unsafe { b() } }", "safe code");
    assert_bad("proxy.rs", "fn f<'a>(b: &'a str) { var\"\"; r#fn(); unsafe { b() } }", "safe code");
}

#[test]
fn what_not_every_system_has_stands_apart() {
    let of_linux = "fn f() {\n    socket.set_tcp_quickack(true);\n}";
    assert_bad("upstream/socket.rs", of_linux, "Linux's alone");
    assert_good("upstream/socket.rs", &format!("#[cfg(target_os = \"linux\")]\n{of_linux}"));
    let of_unix = "use std::os::unix::fs::MetadataExt as _;";
    assert_bad("policy/route.rs", of_unix, "is of Unix");
    assert_good("policy/route.rs", &format!("#[cfg(unix)]\n{of_unix}"));
    assert_good("input_file.rs", of_unix);
    assert_good("policy/route.rs", "// std::os::unix has it.");
    let far = "fn f() {}\n".repeat(7);
    assert_bad("policy/route.rs", &format!("#[cfg(unix)]\n{far}{of_unix}"), "is of Unix");
}
