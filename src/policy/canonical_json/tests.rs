//! The one form of JSON: what is the same, what is not, and that nothing is lost.

use proptest::prelude::*;

use super::*;

fn form(text: &str) -> Result<String, JsonFault> {
    let document = CanonicalJson::parse(text.as_bytes())?;
    Ok(String::from_utf8(document.to_bytes()).expect("it is text"))
}

#[test]
fn texts_of_one_value_have_one_form() {
    for (text, expected) in [
        (" { \"b\" : 1 ,\n\t\"a\" : [ 1 , 2 ] } ", r#"{"a":[1,2],"b":1}"#),
        (r#"{"b":{"d":1,"c":2},"a":null}"#, r#"{"a":null,"b":{"c":2,"d":1}}"#),
        (r#""\u0041\/\u00e9\ud83d\ude00\n""#, "\"A/é😀\\u000a\""),
        (r#"{"\u0061":true,"A\"":false}"#, r#"{"A\"":false,"a":true}"#),
        (r#""a\tb""#, "\"a\\u0009b\""),
        ("[]", "[]"),
        ("{}", "{}"),
        ("-0.50E+10", "-0.50E+10"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ] {
        assert_eq!(form(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_an_app_may_tell_apart_has_two_forms() {
    for (one, two) in [
        ("1", "1.0"),
        ("1", "\"1\""),
        ("100", "1e2"),
        ("0", "-0"),
        ("null", "\"null\""),
        ("[1,2]", "[2,1]"),
        ("[]", "{}"),
        (r#"{"a":null}"#, "{}"),
        (r#"{"a":1}"#, r#"{"A":1}"#),
        ("\"é\"", "\"e\u{301}\""),
    ] {
        assert_ne!(form(one), form(two), "{one} {two}");
    }
}

#[test]
fn a_name_that_comes_twice_is_refused_in_any_case() {
    for text in [
        r#"{"id":1,"id":1}"#,
        r#"{"id":1,"a":0,"ID":2}"#,
        r#"{"id":1,"\u0069d":2}"#,
        r#"[{"x":{"Straße":1,"STRASSE":2}}]"#,
    ] {
        assert_eq!(form(text), Err(JsonFault::RepeatedMember), "{text}");
    }
}

#[test]
fn what_is_not_json_is_malformed() {
    for text in [
        "",
        " ",
        "{",
        "[",
        "[1",
        "[1,]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "-",
        "1e",
        "+1",
        "NaN",
        "tru",
        "true1",
        "\"a",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\n\"",
        "1 1",
        "\u{feff}1",
        "'a'",
        "// x\n1",
        "\"\\u+123\"",
    ] {
        assert_eq!(form(text), Err(JsonFault::Malformed), "{text:?}");
    }
    assert_eq!(CanonicalJson::parse(b"\"\xff\""), Err(JsonFault::Malformed));
}

#[test]
fn depth_is_bounded_before_the_stack_is_used() {
    let nested = |depth: usize| [&"[".repeat(depth)[..], &"]".repeat(depth)].concat();
    assert!(form(&nested(MAX_DEPTH)).is_ok());
    for deep in [MAX_DEPTH + 1, 100_000] {
        assert_eq!(form(&nested(deep)), Err(JsonFault::TooDeep));
        assert_eq!(form(&"[".repeat(deep)), Err(JsonFault::TooDeep));
        assert_eq!(form(&"{\"a\":".repeat(deep)), Err(JsonFault::TooDeep));
    }
}

#[test]
fn what_no_path_leads_to_is_left_out() {
    let text = br#"{"filter":{"id":1,"name":"x","deep":{"a":[1],"b":2}},"page":2,"trace":"t"}"#;
    let document = CanonicalJson::parse(text).expect("JSON");
    let paths = |list: &[&[&str]]| -> Vec<Vec<String>> {
        list.iter().map(|path| path.iter().map(|&step| step.to_owned()).collect()).collect()
    };
    for (list, expected) in [
        (&[&["filter", "id"][..]][..], Some(r#"{"filter":{"id":1}}"#)),
        (&[&["page"], &["filter", "id"]], Some(r#"{"filter":{"id":1},"page":2}"#)),
        (
            &[&["filter", "deep"], &["filter", "deep", "b"]],
            Some(r#"{"filter":{"deep":{"a":[1],"b":2}}}"#),
        ),
        (&[&["filter", "deep", "a"]], Some(r#"{"filter":{"deep":{"a":[1]}}}"#)),
        (&[&["filter", "gone"], &["page", "x"]], None),
        (&[&["Page"]], None),
        (&[], None),
    ] {
        let paths = paths(list);
        let slices: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
        let picked = document.picked(&slices).map(|picked| picked.to_bytes());
        assert_eq!(picked.as_deref(), expected.map(str::as_bytes), "{list:?}");
    }
    let [id, gone, list] =
        [&["filter", "id"][..], &["filter", "id", "x"], &["filter", "deep", "a"]]
            .map(|path| paths(&[path]).remove(0));
    assert_eq!(document.at(&id), Some(&CanonicalJson::Plain("1")));
    assert_eq!(document.at(&gone), None);
    assert!(document.at(&list).is_some());
}

/// A document as a serializer makes it.
fn documents() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        "[a-c\"\\\\\u{1}é😀]{0,3}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-d]{1,2}", inner, 0..4)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_form_means_what_its_text_means(value in documents(), pretty in any::<bool>()) {
        let text = if pretty {
            serde_json::to_string_pretty(&value).expect("JSON")
        } else {
            value.to_string()
        };
        let own = form(&text).expect("it is well-formed");
        prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&own).expect("JSON"), &value);
        let again = form(&own);
        prop_assert_eq!(again.as_deref(), Ok(&*own));
    }

    #[test]
    fn equal_forms_are_equal_values(one in documents(), two in documents()) {
        prop_assert_eq!(form(&one.to_string()) == form(&two.to_string()), one == two);
    }

    #[test]
    fn any_text_is_read_as_another_parser_reads_it(
        text in "[\\[\\]{},:\"\\\\a-c0-2.eE+ \u{e9}-]{0,24}",
    ) {
        let own = form(&text);
        let other = serde_json::from_str::<serde_json::Value>(&text);
        match own {
            // It reads no numbers that are too large for it.
            Ok(_) => prop_assert!(
                other.as_ref().err().is_none_or(|error| error.to_string().contains("out of range")),
                "{other:?}"
            ),
            // It keeps the last of two members.
            Err(JsonFault::RepeatedMember) => {}
            Err(_) => prop_assert!(other.is_err()),
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = CanonicalJson::parse(&bytes);
    }
}
