//! Tests of patterns and of the tree.

use super::*;
use proptest::prelude::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect(text)
}

fn captured(text: &str, path: &str) -> Option<Vec<String>> {
    pattern(text)
        .captures_of(path)
        .map(|captures| captures.iter().map(|(_, value)| value.to_string()).collect())
}

#[test]
fn captures_take_one_segment_and_the_rest_takes_any_number() {
    assert_eq!(captured("/a/{id}", "/a/7"), Some(vec!["7".into()]));
    assert_eq!(captured("/a/{id}", "/a/"), None);
    assert_eq!(captured("/a/{id}", "/a/7/"), None);
    assert_eq!(captured("/a/{*rest}", "/a"), Some(vec![String::new()]));
    assert_eq!(captured("/a/{*rest}", "/a/"), Some(vec![String::new()]));
    assert_eq!(captured("/a/{*rest}", "/a/b/c"), Some(vec!["b/c".into()]));
    assert_eq!(captured("/a/{*rest}", "/ab"), None);
    assert_eq!(captured("/{*rest}", "/"), Some(vec![String::new()]));
    assert_eq!(captured("/", "/"), Some(vec![]));
    assert_eq!(captured("/a", "/a/"), None);
}

#[test]
fn the_most_specific_pattern_wins_whatever_the_order() {
    let mut patterns =
        ["/{*rest}", "/a/{*rest}", "/a/{id}", "/a/b", "/a/{id}/c", "/{x}/b/c", "/a/"];
    for _ in 0..2 {
        let mut tree = Tree::default();
        for (id, text) in patterns.iter().enumerate() {
            assert_eq!(tree.insert(&pattern(text), id), None);
        }
        let find = |path: &str| tree.find(path).map(|id| patterns[id]);
        assert_eq!(find("/a/b"), Some("/a/b"));
        assert_eq!(find("/a/x"), Some("/a/{id}"));
        assert_eq!(find("/a/x/c"), Some("/a/{id}/c"));
        assert_eq!(find("/a/b/c"), Some("/a/{id}/c"));
        assert_eq!(find("/a/b/d"), Some("/a/{*rest}"));
        assert_eq!(find("/x/b/c"), Some("/{x}/b/c"));
        assert_eq!(find("/a"), Some("/a/{*rest}"));
        assert_eq!(find("/a/"), Some("/a/"));
        assert_eq!(find("/x"), Some("/{*rest}"));
        patterns.reverse();
    }
}

#[test]
fn patterns_of_one_shape_tie() {
    let mut tree = Tree::default();
    assert_eq!(tree.insert(&pattern("/a/{id}"), 0), None);
    assert_eq!(tree.insert(&pattern("/a/{name}"), 1), Some(0));
    assert!(pattern("/a/{id}").same_shape(&pattern("/a/{name}")));
    assert!(!pattern("/a/{id}").same_shape(&pattern("/a/{*id}")));
}

#[test]
fn cover_means_that_some_path_matches_both() {
    assert!(pattern("/a/{*rest}").may_cover(&pattern("/a")));
    assert!(pattern("/a/{*rest}").may_cover(&pattern("/a/{id}/x")));
    assert!(!pattern("/a/{*rest}").may_cover(&pattern("/b/{id}")));
    assert!(!pattern("/a/{id}").may_cover(&pattern("/a")));
}

#[test]
fn a_bad_pattern_says_what_is_wrong() {
    for (text, what) in [
        ("a", "start with"),
        ("/a//b", "empty segment"),
        ("/{a}/{a}", "twice"),
        ("/{*r}/a", "before its end"),
        ("/{id}{name}", "without text between"),
        ("/{id", "without its other one"),
        ("/a}b", "without its other one"),
        ("/x{*rest}", "beside a capture of everything below"),
        ("/{*rest}.json", "beside a capture of everything below"),
        ("/{a}-{a}", "twice"),
        ("/%{id}", "different ways"),
        ("/{}", "named"),
        ("/a%2fb", "different ways"),
        ("/%61", "normal form"),
        ("/a?b", "different ways"),
        ("/../a", "different ways"),
    ] {
        let error = Pattern::parse(text).expect_err(text);
        assert!(error.what.contains(what), "{text}: {error}");
        assert!(!error.hint.is_empty());
    }
}

#[test]
fn captures_may_be_parts_of_a_segment() {
    for (text, path, values) in [
        ("/a/{id}.json", "/a/7.json", Some(&["7"][..])),
        ("/a/{id}.json", "/a/7", None),
        ("/a/{id}.json", "/a/.json", None),
        ("/a/{id}.json", "/a/7.json.json", None),
        ("/a/{id}.json", "/a/7.json/", None),
        ("/{name}-{id}", "/blue-hat-7", Some(&["blue", "hat-7"])),
        ("/{name}-{id}", "/-7", None),
        ("/{name}-{id}", "/a-", None),
        ("/{name}-{id}", "/--7", None),
        ("/v{version}/{id}", "/v2/7", Some(&["2", "7"])),
        ("/v{version}", "/v", None),
        ("/v{version}", "/2v", None),
        ("/{a}.{b}.{c}", "/x.y.z.w", Some(&["x", "y", "z.w"])),
        ("/@{user}/x-{id}-y/{*rest}", "/@ann/x-1-y/b/c", Some(&["ann", "1", "b/c"])),
        ("/{id}:batch", "/7:batch", Some(&["7"])),
    ] {
        let values = values.map(|values| values.iter().map(|v| (*v).to_owned()).collect());
        assert_eq!(captured(text, path), values, "{text} {path}");
    }
    let names: Vec<_> = pattern("/{a}/{b}-{c}/{*d}").captures().map(str::to_owned).collect();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn parts_of_a_segment_keep_to_the_case_of_the_route() {
    let route = pattern("/Items/{Name}-X{id}.JSON");
    assert!(route.captures_of("/items/a-x7.json").is_none());
    let path = "/iTEMS/Blue-x7B.Json";
    let captures = route.captures_in_any_case(path).expect("a match");
    assert_eq!(route.path_with(path, &captures), "/Items/Blue-X7B.JSON");
    let mut tree = Tree::default();
    tree.insert(&route.in_lower_case(), 0);
    assert_eq!(tree.find(&path.to_ascii_lowercase()), Some(0));
}

#[test]
fn a_write_matches_parts_of_a_segment_with_and_without_an_extension() {
    for (text, path, values) in [
        ("/Items/{id}.json", "/items/7", &["7"][..]),
        ("/items/{id}.tar.gz", "/items/7", &["7"]),
        ("/items/{name}-{id}.json", "/items/a-7", &["a", "7"]),
        ("/items/{name}-{id}", "/items/a-7.json", &["a", "7.json"]),
        ("/items/v{id}.x", "/items/v7", &["7"]),
    ] {
        let writes = pattern(text).for_writes();
        let captures = writes.captures_of(path).unwrap_or_else(|| panic!("{text} {path}"));
        let found: Vec<&str> = captures.iter().map(|(_, value)| &**value).collect();
        assert_eq!(found, values, "{text} {path}");
    }
    let own = pattern("/items/{name}-{id}");
    let captures = own.captures_of("/items/a-7.json").expect("a match");
    let bare = own.bare_captures(&captures).expect("it has an extension");
    assert_eq!(&*bare[1].1, "7");
    let ended = pattern("/items/{id}.json");
    let captures = ended.captures_of("/items/a.b.json").expect("a match");
    assert_eq!(ended.bare_captures(&captures), None, "the extension is the pattern's");
}

#[test]
fn the_segment_with_more_text_is_more_specific_and_equals_tie() {
    let mut patterns =
        ["/{id}", "/{id}.json", "/{name}-{id}", "/{name}-{id}.json", "/a-{id}.json", "/a-b.json"];
    for _ in 0..2 {
        let mut tree = Tree::default();
        for (id, text) in patterns.iter().enumerate() {
            assert_eq!(tree.insert(&pattern(text), id), None);
        }
        for (path, best) in [
            ("/a-b.json", "/a-b.json"),
            ("/a-c.json", "/a-{id}.json"),
            ("/b-c.json", "/{name}-{id}.json"),
            ("/b-c", "/{name}-{id}"),
            ("/b.json", "/{id}.json"),
            ("/b", "/{id}"),
        ] {
            assert_eq!(tree.find(path).map(|id| patterns[id]), Some(best), "{path}");
        }
        patterns.reverse();
    }
    for (one, two, tie) in [
        ("/{a}-{b}", "/{x}-{y}", true),
        ("/{a}-{b}", "/{a}.{b}", true),
        ("/{a}-{b}/x", "/{a}.{b}/{c}", true),
        ("/{a}-{b}/x", "/{a}.{b}/y", false),
        ("/{id}.json", "/{id}.html", false),
        ("/{id}.json", "/{a}-{b}", false),
        ("/{id}.json", "/{id}", false),
        ("/x/{a}-{b}", "/{x}/{a}.{b}", false),
        ("/a{x}", "/b{x}", false),
    ] {
        let (one, two) = (pattern(one), pattern(two));
        assert_eq!((one.ties(&two), two.ties(&one)), (tie, tie), "{one:?} {two:?}");
    }
}

#[test]
fn one_pattern_may_contain_or_meet_another() {
    for (wide, narrow) in [
        ("/{id}", "/{id}.json"),
        ("/{id}.json", "/a.json"),
        ("/{*rest}", "/{id}.json"),
        ("/{a}-{b}", "/{c}-{d}"),
    ] {
        assert!(pattern(wide).contains(&pattern(narrow)), "{wide} {narrow}");
        assert!(pattern(narrow).may_cover(&pattern(wide)), "{wide} {narrow}");
    }
    assert!(!pattern("/{id}.json").contains(&pattern("/{id}")));
    assert!(!pattern("/{id}.json").may_cover(&pattern("/a.html")));
    assert!(!pattern("/{id}.json").may_cover(&pattern("/{id}.html")));
}

#[test]
fn patterns_of_other_tools_are_refused_with_the_right_form() {
    for (text, form) in [
        ("/api/*", "\"/api/{*rest}\" for everything below, or \"/api/{id}\" for one segment"),
        ("/*", "\"/{*rest}\" for everything below, or \"/{id}\""),
        ("/api/*/b/*", "\"/api/{id}/b/{*rest}\" for everything below, or \"/api/{id}/b/{item}\""),
        ("/api/**", "\"/api/{*rest}\""),
        ("/api/**/x", "\"/api/{*rest}\""),
        ("/api/*/items", "\"/api/{id}/items\""),
        ("/api/*/items/*/x", "\"/api/{id}/items/{id2}/x\""),
        ("/api/*path", "\"/api/{*path}\""),
        ("/static/*.css", "\"/static/{id}.css\""),
        ("/api/v*/x", "\"/api/v{id}/x\""),
        ("/api/<id>", "\"/api/{id}\""),
        ("/api/<int:id>/x", "\"/api/{id}/x\""),
        ("/api/<path:rest>", "\"/api/{*rest}\""),
        ("/api/<name>-<id>.json", "\"/api/{name}-{id}.json\""),
        ("/api/[id]", "\"/api/{id}\""),
        ("/api/[id].json", "\"/api/{id}.json\""),
        ("/api/[...slug]", "\"/api/{*slug}\""),
        ("/api/[[...slug]]", "\"/api/{*slug}\""),
        ("/api/:id", "\"/api/{id}\""),
        ("/api/:id/x", "\"/api/{id}/x\""),
        ("/api/:from-:to", "\"/api/{from}-{to}\""),
        ("/api/:id(\\d+)", "\"/api/{id}\""),
        ("/api/:path*", "\"/api/{*path}\""),
        ("/api/{id:int}", "\"/api/{id}\""),
        ("/api/{id:[0-9]{3}}", "\"/api/{id}\""),
        ("/api/{id?}", "\"/api/{id}\""),
        ("/api/{path:path}", "\"/api/{*path}\""),
        ("/api/{path...}", "\"/api/{*path}\""),
        ("/api/{**path}", "\"/api/{*path}\""),
        ("/api/.*", "\"/api/{*rest}\""),
        ("/api/(.+)$", "\"/api/{*rest}\""),
        ("/api/[0-9]+/x", "\"/api/{id}/x\""),
        ("^/api/.*$", "\"/api/{*rest}\""),
        ("~ ^/api/", "\"/api/\""),
        ("*/api", "\"/api\""),
        ("https://app.example.com/api/:id", "\"/api/{id}\""),
    ] {
        let error = Pattern::parse(text).expect_err(text);
        assert!(error.hint.contains(form), "{text}: {error}: {}", error.hint);
        assert!(error.what.contains(text.trim_matches('"')) || text.contains('\\'), "{error}");
    }
    // Text that looks a little like it.
    for text in
        ["/items:batch", "/items/{id}:batch", "/a%5B0%5D", "/a+b", "/item(5)", "/a/{tenant-id}"]
    {
        pattern(text);
    }
}

/// Every way in which a mixed segment could match, tried one by one.
fn naive(pieces: &[(bool, &str)], segment: &str) -> Vec<Vec<String>> {
    match pieces {
        [] => {
            if segment.is_empty() {
                vec![Vec::new()]
            } else {
                Vec::new()
            }
        }
        [(false, text), rest @ ..] => {
            segment.strip_prefix(text).map_or_else(Vec::new, |after| naive(rest, after))
        }
        [(true, _), rest @ ..] => {
            let mut found = Vec::new();
            for end in 1..=segment.len() {
                let (value, after) = segment.split_at(end);
                // The text that follows begins here for the first time.
                let is_first = |text: &str| segment.find(text) == Some(end);
                if rest.first().is_none_or(|(_, text)| is_first(text)) {
                    for mut values in naive(rest, after) {
                        values.insert(0, value.to_owned());
                        found.push(values);
                    }
                }
            }
            found
        }
    }
}

/// A pattern with a capture of its own in place of each `?`.
fn numbered(shape: &str) -> String {
    let mut number = 0;
    let pieces = shape.split_inclusive('?').map(|piece| {
        number += 1;
        piece.replace('?', &format!("{{n{number}}}"))
    });
    pieces.collect()
}

proptest! {
    #[test]
    fn the_tree_finds_the_most_specific_pattern(
        shapes in proptest::collection::vec(
            "(/(a|b|ab|\\?|\\?b|a\\?|\\?ab|\\?a\\?|\\?b\\?|a\\?b\\?)){1,3}(/\\{\\*r\\})?",
            1..8,
        ),
        path in "(/[abc]{0,4}){1,4}",
    ) {
        let mut tree = Tree::default();
        let mut patterns: Vec<Pattern> = Vec::new();
        for shape in shapes {
            let pattern = pattern(&numbered(&shape));
            if !patterns.iter().any(|known| known.ties(&pattern)) {
                prop_assert_eq!(tree.insert(&pattern, patterns.len()), None);
                patterns.push(pattern);
            }
        }
        let matches = |pattern: &&Pattern| pattern.captures_of(&path).is_some();
        let matching: Vec<&Pattern> = patterns.iter().filter(matches).collect();
        let found = tree.find(&path).map(|id| &patterns[id]);
        prop_assert_eq!(found.is_some(), !matching.is_empty());
        for other in matching {
            let found = found.expect("there is one");
            prop_assert!(matches(&found));
            prop_assert!(other == found || found.is_more_specific(other), "{found:?} {other:?}");
        }
    }

    #[test]
    fn a_segment_matches_as_the_naive_matcher_says(
        texts in proptest::collection::vec("[ab]{1,2}", 1..4),
        begins in proptest::bool::ANY,
        ends in proptest::bool::ANY,
        segment in "[abc]{0,8}",
    ) {
        // Text and captures in turn.
        let mut pieces: Vec<(bool, &str)> = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            if at > 0 || begins {
                pieces.push((true, ""));
            }
            pieces.push((false, text));
        }
        if ends || pieces.len() == 1 {
            pieces.push((true, ""));
        }
        let shape: String =
            pieces.iter().map(|(is_capture, text)| if *is_capture { "?" } else { text }).collect();
        let pattern = pattern(&format!("/{}", numbered(&shape)));
        let all = naive(&pieces, &segment);
        prop_assert!(all.len() < 2, "it is read in one way: {all:?}");
        let values = |captures: Captures| -> Vec<String> {
            captures.into_iter().map(|(_, value)| value.into()).collect()
        };
        let found = pattern.captures_of(&format!("/{segment}")).map(values);
        prop_assert_eq!(&found, &all.first().cloned());
        // In any case, lower case is the same.
        let upper = format!("/{}", segment.to_uppercase());
        let in_any_case = pattern.captures_in_any_case(&upper).map(values);
        prop_assert_eq!(in_any_case.is_some(), found.is_some());
        if let Some(found) = found {
            let in_any_case = in_any_case.unwrap_or_default().concat();
            prop_assert_eq!(in_any_case.to_lowercase(), found.concat());
        }
    }
}
