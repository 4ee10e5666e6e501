//! Tests of request targets.

use super::*;
use proptest::prelude::*;

#[test]
fn ordinary_paths_are_unchanged() {
    for path in
        ["/", "/api/v1/campaigns", "/a/b/", "/a.css", "/a/.well-known/x", "/a:b@c!$&'()*+,=~"]
    {
        assert_eq!(normal_path(path).as_deref(), Some(path));
    }
}

#[test]
fn escapes_are_normalized() {
    assert_eq!(normal_path("/%61%2D%e4%b8%ad").as_deref(), Some("/a-%E4%B8%AD"));
    assert_eq!(normal_path("/a%20b").as_deref(), Some("/a%20b"));
}

#[test]
fn a_raw_character_and_its_escape_are_one() {
    for (raw, normal) in [
        ("/ü", "/%C3%BC"),
        ("/a\"b<c>`d`", "/a%22b%3Cc%3E%60d%60"),
        ("/{a|b}^[c]", "/%7Ba%7Cb%7D%5E%5Bc%5D"),
        ("/ü%61{%2d", "/%C3%BCa%7B-"),
    ] {
        assert_eq!(normal_path(raw).as_deref(), Some(normal));
        assert_eq!(normal_path(normal).as_deref(), Some(normal));
        let lower = normal.to_ascii_lowercase();
        assert_eq!(normal_path(&lower).as_deref(), Some(normal));
        assert!(readings(raw).contains(&normal.to_owned()), "a write to it purges both");
    }
    assert_eq!(normal_query("q=\"ü\"&a[]={1|2}^\\`"), "q=%22%C3%BC%22&a[]=%7B1%7C2%7D%5E%5C%60");
    assert!(matches!(normal_query("a=b%22&c=/?:@"), Cow::Borrowed(_)));
    let wanted = ["q".into()];
    assert_eq!(pick("x=1&q=\"ü\"", &wanted).as_deref(), Ok("q=%22%C3%BC%22"));
    assert_eq!(pick("q=%22%C3%BC%22", &wanted).as_deref(), Ok("q=%22%C3%BC%22"));
}

#[test]
fn paths_with_two_readings_have_no_normal_form() {
    for path in [
        "/account;x.css",
        "/account%3bx.css",
        "/account%2fx.css",
        "/account%00x.css",
        "/account%23x.css",
        "/account%3fx.css",
        "/account%0ax.css",
        "/static/..%2faccount",
        "/static/../account",
        "/static%2f..%2faccount",
        "//account",
        "/account\\x.css",
        "/account/.",
        "/robots.txt/../account",
        "/%2e%2e/a",
        "/a%",
        "/a%4",
        "/a%zz",
        "a",
        "",
        "*",
        "/a%5Cb",
        "/a%25b",
        "/a//b",
        "/..",
    ] {
        assert_eq!(normal_path(path), None, "{path}");
    }
}

#[test]
fn an_escaped_slash_is_kept_where_it_leaves_no_doubt() {
    for (raw, kept) in [
        ("/@scope%2fname", "/@scope%2Fname"),
        ("/@scope%2Fname", "/@scope%2Fname"),
        ("/%40scope%2fname/", "/%40scope%2Fname/"),
        (
            "/api/v4/projects/group%2fsub%2fproject/issues",
            "/api/v4/projects/group%2Fsub%2Fproject/issues",
        ),
        ("/%61%2fb", "/a%2Fb"),
    ] {
        let normal = kept_path(raw).expect(raw);
        assert_eq!((&*normal.path, normal.has_escaped_slash), (kept, true));
        assert_eq!(normal_path(raw), None, "{raw}");
        assert_eq!(kept_path(kept), Some(normal), "the normal form of a normal form is itself");
    }
    assert!(!kept_path("/a%20b").expect("plain").has_escaped_slash);
    for doubtful in [
        "/a%252fb",
        "/a/..%2fb",
        "/a%2f..",
        "/a%2f.%2fb",
        "/.%2fb",
        "/a/%2e%2e%2fb",
        "/a%5cb%2fc",
        "/a%2f%2fb",
        "/a/%2fb",
        "/a%2f/b",
        "/%2fb",
        "/a%2f",
        "/a%2fb;x",
        "/a%2fb%00",
        "/a%2fb//c",
        "/a%2fb%2",
    ] {
        assert_eq!(kept_path(doubtful), None, "{doubtful}");
    }
}

#[test]
fn a_write_is_read_with_its_escaped_slashes_too() {
    for (raw, reading) in [
        ("/%61pi/group%2fa", "/api/group%2fa"),
        ("/%2561pi;v=1/group%2fa", "/api/group%2fa"),
        ("/API/./x/../group%2Fa.json", "/api/group%2fa"),
    ] {
        assert!(write_readings(raw).iter().any(|found| found == reading), "{raw}");
    }
    assert_eq!(permissive_kept_path("/a/b%252fc"), None);
}

#[test]
fn the_permissive_reading_resolves_escapes_parameters_and_dots() {
    assert_eq!(permissive_path("/api%2fv1/./campaigns;v=1//7"), "/api/v1/campaigns/7");
    assert_eq!(permissive_path("/a/../api%252fv1\\x"), "/api/v1/x");
}

#[test]
fn a_bare_path_has_no_final_slash_and_no_extension() {
    for (path, bare) in [
        ("/items/7", "/items/7"),
        ("/items/7/", "/items/7"),
        ("/items/7.json", "/items/7"),
        ("/items/7.json/", "/items/7"),
        ("/a.b/7", "/a.b/7"),
        ("/a.tar.gz", "/a"),
        ("/hosts/10.0.0.1", "/hosts/10.0.0.1"),
        ("/v1.2", "/v1.2"),
        ("/users/a@example.com", "/users/a@example"),
        ("/.env", "/.env"),
        ("/a.", "/a."),
        ("/", ""),
        ("7.json", "7"),
    ] {
        assert_eq!(bare_path(path), bare, "{path}");
        assert_eq!(bare_path(bare), bare);
    }
    assert_eq!(write_readings("/Items/7.JSON"), ["/items/7", "/items/7.json"]);
    assert_eq!(write_readings("/"), ["/"]);
}

#[test]
fn listed_parameters_are_picked_in_the_lists_order() {
    let wanted = ["page".into(), "limit".into()];
    assert_eq!(pick("limit=2&utm=1&page=1", &wanted).as_deref(), Ok("page=1&limit=2"));
    assert_eq!(pick("", &wanted).as_deref(), Ok(""));
    for cloaked in [
        "page=1&page=2",
        "page=1&%70age=2",
        "utm=1;page=2",
        "page[]=1",
        "page=%00",
        "page=%zz",
        "page[0]=1&page=1",
    ] {
        assert_eq!(pick(cloaked, &wanted), Err(AmbiguousQuery), "{cloaked}");
    }
}

#[test]
fn a_purge_covers_every_value_that_a_query_could_mean() {
    for (query, values) in [
        ("t=7&note=50%", &["7"][..]),
        ("t=7&t=8&t[]=9", &["7", "8", "9"]),
        ("a=b;t=7", &["7"]),
        ("t=7;x=1", &["7", "7;x=1"]),
        ("t=7&+t=8&T=9&t%00=10", &["10", "7", "8", "9"]),
        ("t=+7", &[" 7", "7"]),
        ("t=7&x=%FF&ts=8", &["7"]),
    ] {
        let values = values.iter().map(ToString::to_string).collect();
        assert_eq!(every_value(query, "t"), Some(values), "{query}");
    }
    assert_eq!(every_value("t=7&t=%FF", "t"), None, "nobody can tell");
    assert_eq!(readings("/c/7%2Fx"), ["/c/7%2Fx", "/c/7/x"]);
}

#[test]
fn a_parameter_is_decoded() {
    assert_eq!(parameter("a=1&b=x%20y+z", "b"), Ok(Some("x y z".into())));
    assert_eq!(parameter("a=1", "b"), Ok(None));
    assert_eq!(parameter("b=1&b=1", "b"), Err(AmbiguousQuery));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_path_of_one_reading_has_no_other(
        plain in "(/[a-cA-Z0-9_.~-]{1,4}){1,4}",
        strange in "[a-z%2f./\\\\;?#~_ü-]{0,10}",
        behind in any::<bool>(),
    ) {
        let path = if behind { format!("{plain}{strange}") } else { plain };
        prop_assert_eq!(readings(&path), all_readings(&path));
    }

    #[test]
    fn the_normal_form_of_a_normal_form_is_itself(path in "/[ -~]{0,40}") {
        if let Some(normal) = normal_path(&path) {
            let again = normal_path(&normal);
            prop_assert_eq!(again.as_deref(), Some(&*normal));
        }
        if let Some(normal) = kept_path(&path) {
            let again = kept_path(&normal.path).map(|again| again.path);
            prop_assert_eq!(again.as_deref(), Some(&*normal.path));
        }
    }

    #[test]
    fn nothing_panics(text in "\\PC{0,60}") {
        let _ = (
            normal_path(&text),
            readings(&text),
            pick(&text, &["a".into()]),
            parameter(&text, "a"),
        );
    }
}
