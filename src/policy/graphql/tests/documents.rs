//! Tests of documents: what is found in them, whatever a stranger writes.

use proptest::prelude::*;

use super::super::document::{Document, DocumentUse, MAX_DEPTH, MAX_TOKENS, OperationName};
use super::*;

fn fields(text: &str) -> String {
    let document = Document::parse(text).expect("a document");
    match document.used_as(OperationName::Absent) {
        DocumentUse::Write(fields) => shown(&GraphqlRequest::Write(fields)),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn root_fields_are_found_through_fragments_and_aliases() {
    for (text, is) in [
        ("mutation { a b: c }", "write a,c"),
        ("mutation { query: deleteAll }", "write deleteAll"),
        ("mutation { ...F } fragment F on M { a ...G } fragment G on M { x: b }", "write a,b"),
        ("mutation { ... on M { a ... @include(if: $x) { b } } }", "write a,b"),
        ("mutation { ...F } fragment F on M { ...F a }", "write a"),
        ("mutation { ...F } fragment F on M { ...G } fragment G on M { ...F b }", "write b"),
        ("mutation { ...F } fragment F on M { ...G }", "in doubt"),
        ("mutation { ...F } fragment F on M { ...F }", "in doubt"),
        ("mutation { a @skip(if: true) b }", "write a,b"),
        ("mutation A { a } mutation B { b }", "write a,b"),
        ("mutation { a { nested } }", "write a"),
        ("mutation { a(x: \"{ b }\") }", "write a"),
    ] {
        assert_eq!(fields(text), is, "{text}");
    }
}

#[test]
fn a_mutation_hides_in_nothing() {
    let block = "\"\"\"";
    for (text, is) in [
        ("# mutation { b }\n{ a }".to_owned(), "read"),
        ("{ a(x: \"mutation { b }\") }".to_owned(), "read"),
        (
            format!("{{ a(x: {block}\nmutation {{ b }} \\{block} }} mutation {{ b }} {block}) }}"),
            "read",
        ),
        (format!("{{ a(x: {block}{block}) }} mutation {{ b }}"), "write b"),
        ("{ mutation { mutation } }".to_owned(), "read"),
        ("query mutation { a }".to_owned(), "read"),
        ("{ a } #\nmutation { b }".to_owned(), "write b"),
        ("{ a } #\r\nmutation { b }".to_owned(), "write b"),
        // Lexers differ in which of these end a comment, or count for nothing.
        ("{ a } #\rmutation { b }".to_owned(), "in doubt"),
        ("{ a } #\u{2028}mutation { b }".to_owned(), "in doubt"),
        ("{ a } #\u{85}mutation { b }".to_owned(), "in doubt"),
        ("{ a } #\u{c}mutation { b }".to_owned(), "in doubt"),
        ("{ a } #\0mutation { b }".to_owned(), "in doubt"),
        ("\u{feff}{ a }".to_owned(), "in doubt"),
        ("{ a }\u{feff}mutation { b }".to_owned(), "in doubt"),
        ("{ a }\u{a0}mutation { b }".to_owned(), "in doubt"),
        ("{ a },,,mutation,{,b,}".to_owned(), "write b"),
        ("Mutation { b }".to_owned(), "in doubt"),
        ("\"about\" mutation { b }".to_owned(), "in doubt"),
        ("mutation M { b } extend type Q { a: Int }".to_owned(), "in doubt"),
        ("query { a } mutation { b".to_owned(), "in doubt"),
    ] {
        assert_eq!(posted(&body(&text), "", None), is, "{text:?}");
    }
}

#[test]
fn hostile_documents_cost_little() {
    let many = |text: &str, times: usize| text.repeat(times);
    let mega = 1 << 20;
    let fields: Vec<String> = (0..99).map(|at| format!("a{at}")).collect();
    let fragments = (0..2000).map(|at| format!("fragment F{at} on M {{ ...F{} }} ", at + 1));
    let spread_alike =
        format!("{} fragment F on M {{ {} }}", many("mutation { ...F } ", 500), many("a ", 2000));
    for (text, is) in [
        (many("{", mega), None),
        (many("}", mega), None),
        (many("[", mega), None),
        (many("\"", mega), None),
        (many("#", mega), None),
        (many("#\n", mega / 2), None),
        (many("...", mega / 3), None),
        (many("query ", mega / 6), None),
        (format!("{{ a(x: {}1{}) }}", many("[", mega / 2), many("]", mega / 2)), None),
        (format!("query Q($a: {}Int{}) {{ a }}", many("[", 9999), many("]", 9999)), None),
        (format!("{}a{}", many("{a", MAX_DEPTH + 1), many("}", MAX_DEPTH + 1)), None),
        (format!("{}{{a}}{}", many("{a", MAX_DEPTH - 1), many("}", MAX_DEPTH - 1)), Some("read")),
        (format!("{{ {} }}", many("x: a ", 100_000)), None),
        (format!("{{ {} }}", many("a ", MAX_TOKENS / 2 - 10)), Some("read")),
        (format!("{{ {} }}", many("a ", MAX_TOKENS / 2 + 10)), None),
        (format!("mutation {{ {} }}", fields.join(" ")), Some("in doubt")),
        (format!("mutation {{ ...F0 }} {}", fragments.collect::<String>()), Some("in doubt")),
        (spread_alike, Some("write a")),
    ] {
        let found = posted(&body(&text), "", None);
        let start: String = text.chars().take(40).collect();
        assert_eq!(found, is.unwrap_or("in doubt"), "{start}");
    }
}

/// An operation as the generator knows it: its kind, its name, its root fields.
type Known = (&'static str, Option<String>, Vec<String>);

fn ignored() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        " ",
        "\n",
        ",",
        "\t",
        "\r\n",
        " # mutation { z }\n",
        " #\"\"\"\n",
        " # } query {\n",
    ])
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1",
        "-0.5e3",
        "\"\"",
        "\"mutation { z }\"",
        "\"\\\"}\"",
        "\"\"\"mutation { \\\"\"\" z }\"\"\"",
        "\"\"\"\"\"\"",
        "$v",
        "MUTATION",
        "null",
        "\"\\u007b\"",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|all| format!("[{}]", all.join(" "))),
            inner.prop_map(|value| format!("{{mutation:{value}}}")),
        ]
    })
}

fn operation() -> impl Strategy<Value = (Known, String)> {
    let kind = prop::sample::select(vec!["", "query", "mutation", "subscription"]);
    let name = prop::option::of("(query|mutation|on|A|B)");
    let field =
        ("[a-c]", prop::option::of("[x-z]|mutation|query"), prop::option::of(value()), ignored());
    let fields = prop::collection::vec(field, 1..4);
    (kind, name, fields, ignored(), any::<bool>()).prop_map(|(kind, name, fields, gap, spreads)| {
        let name = name.filter(|_| !kind.is_empty());
        let mut names: Vec<String> = fields.iter().map(|(field, ..)| field.clone()).collect();
        let shown: Vec<String> = fields
            .into_iter()
            .map(|(field, alias, value, gap)| {
                // The parser takes no comma here, which leaves such a document in doubt.
                let inner = gap.replace(',', " ");
                let alias = alias.map(|alias| format!("{alias}{inner}:")).unwrap_or_default();
                let value = value.map(|value| format!("({gap}v:{value})")).unwrap_or_default();
                format!("{alias}{field}{value}{gap}{{n}}")
            })
            .collect();
        let mut inner = shown.join(gap);
        if spreads {
            names.push("f".to_owned());
            let plain = gap.replace(',', " ");
            inner = format!("...{plain}on{gap}T{{{inner}}}...{plain}F");
        }
        names.sort();
        names.dedup();
        let shown_name = name.clone().unwrap_or_default();
        let text = format!("{kind}{gap}{shown_name}{gap}{{{inner}}}");
        let kind = if kind.is_empty() { "query" } else { kind };
        ((kind, name, names), text)
    })
}

/// Which kinds of operations a text has, by looking at what stands outside of all braces.
fn kinds_by_scanning(text: &str) -> Vec<&'static str> {
    let mut rest = text.replace("\\\"\"\"", "").replace("\"\"\"\"\"\"", "0");
    let (mut plain, mut kinds, mut depth) = (String::new(), Vec::new(), 0_usize);
    while let Some(letter) = rest.chars().next() {
        let end = match letter {
            '#' => rest.find('\n'),
            '"' if rest.starts_with("\"\"\"") => rest[3..].find("\"\"\"").map(|at| at + 6),
            '"' => {
                let mut at = 1;
                while !rest[at..].starts_with('"') {
                    at += if rest[at..].starts_with('\\') { 2 } else { 1 };
                }
                Some(at + 1)
            }
            _ => {
                plain.push(letter);
                Some(letter.len_utf8())
            }
        };
        rest = rest[end.unwrap_or(rest.len())..].to_owned();
    }
    let mut header = String::new();
    for letter in plain.chars() {
        match letter {
            '{' => {
                if depth == 0 {
                    let first =
                        header.split([' ', ',', '\n', '\t', '\r']).find(|it| !it.is_empty());
                    match first {
                        None | Some("query") => kinds.push("query"),
                        Some("mutation") => kinds.push("mutation"),
                        Some("subscription") => kinds.push("subscription"),
                        Some(_) => {}
                    }
                    header.clear();
                }
                depth += 1;
            }
            '}' => depth -= 1,
            _ if depth == 0 => header.push(letter),
            _ => {}
        }
    }
    kinds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What is told of a document is what it was made of, and what a scan of it finds.
    #[test]
    fn documents_are_told_as_they_were_made(
        operations in prop::collection::vec(operation(), 1..4),
        wanted in prop::option::of("(query|mutation|A|B|Z)"),
    ) {
        let texts: Vec<&str> = operations.iter().map(|(_, text)| text.as_str()).collect();
        let text = format!("{}\nfragment F on T {{ al: f }}", texts.join("\n"));
        let made: Vec<&Known> = operations.iter().map(|(known, _)| known).collect();
        let kinds: Vec<&str> = made.iter().map(|(kind, ..)| *kind).collect();
        prop_assert_eq!(&kinds_by_scanning(&text), &kinds, "{}", text);
        let document = Document::parse(&text);
        prop_assert!(document.is_some(), "{}", text);
        let document = document.expect("a document");
        let name = wanted.as_deref().map_or(OperationName::Absent, OperationName::Named);
        let found = document.used_as(name);
        let named: Vec<&&Known> = match &wanted {
            None => made.iter().collect(),
            Some(_) => made.iter().filter(|(_, name, _)| *name == wanted).collect(),
        };
        let may_write = kinds.contains(&"mutation");
        let is_query = matches!(&*named, [(kind, ..)] if *kind == "query");
        match found {
            DocumentUse::Read => prop_assert!(is_query || !may_write, "{}", text),
            DocumentUse::Pass(_) => {
                let is_mutation = named.iter().any(|(kind, ..)| *kind == "mutation");
                prop_assert!(!is_mutation, "{}", text);
                prop_assert!(!may_write || named.len() == 1, "{}", text);
            }
            DocumentUse::Write(WrittenFields::These(fields)) => {
                prop_assert!(may_write);
                for (_, _, own) in made.iter().filter(|(kind, ..)| *kind == "mutation") {
                    for field in own {
                        prop_assert!(fields.names.contains(&**field), "{} of {}", field, text);
                    }
                }
            }
            DocumentUse::Write(WrittenFields::Unknown) => prop_assert!(false, "{}", text),
        }
        if is_query && named.len() == made.len() {
            prop_assert!(matches!(document.used_as(name), DocumentUse::Read), "{}", text);
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic(
        text in concat!(
            r##"([{}()\[\]:$@!=|&."#\\ ,\n]|\.\.\.|"""|query|mutation|on|fragment|"##,
            r"[a-z0-9-]|\PC){0,40}",
        ),
    ) {
        let _ = Document::parse(&text);
        let _ = posted(&body(&text), "", None);
        let _ = read_get(&text, false, None);
    }
}
