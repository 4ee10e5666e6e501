//! Normal forms: what shares one, what must not, and that they are stable.

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;

fn form(name: &HeaderName, value: &str) -> String {
    form_among(name, value, None)
}

fn form_among(name: &HeaderName, value: &str, languages: Option<&[Box<str>]>) -> String {
    match keyed_form(name, value.as_bytes(), languages) {
        KeyedForm::Default => String::new(),
        KeyedForm::Text(text) => text.into_owned(),
    }
}

#[test]
fn codings_are_those_that_are_accepted() {
    for (value, expected) in [
        ("gzip, deflate, br;q=0", "deflate,gzip"),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", "br,deflate,gzip,zstd"),
        ("GZIP , x-gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, gzip;q=0", ""),
        ("identity", ""),
        ("*", "br,deflate,gzip,zstd"),
        ("*;q=0", ""),
        ("*, br;q=0", "deflate,gzip,zstd"),
        ("compress, dcb, foo", ""),
        ("gzip;q=0.0000", ""),
        ("gzip;q=.5", "gzip"),
        ("gzip;level=1;q=0", ""),
        ("", ""),
    ] {
        assert_eq!(form(&ACCEPT_ENCODING, value), expected, "{value:?}");
    }
    assert_eq!(on_the_wire(&ACCEPT_ENCODING, "br,gzip"), "br, gzip");
}

#[test]
fn a_response_is_for_those_who_can_decode_it() {
    let coded = |coding: &'static str| {
        HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(coding))])
    };
    assert!(accepts_codings(b"gzip, br", &coded("br")));
    assert!(accepts_codings(b"gzip", &coded("X-GZIP")) && accepts_codings(b"", &HeaderMap::new()));
    assert!(accepts_codings(b"", &coded("identity")));
    for refused in ["br", "br, gzip", "zstd", "foo"] {
        assert!(!accepts_codings(b"gzip, br;q=0", &coded(refused)), "{refused}");
    }
    assert!(!accepts_codings(b"identity", &coded("gzip")));
}

/// The client's weights come first, and the cache's order decides between equal ones.
#[test]
fn the_best_coding_is_that_of_the_client_and_then_that_of_the_cache() {
    use Coding::{Brotli, Gzip, Zstd};
    for (value, expected) in [
        ("gzip, deflate, br, zstd", Some(Zstd)),
        ("gzip, deflate, br", Some(Brotli)),
        ("gzip", Some(Gzip)),
        ("X-GZIP", Some(Gzip)),
        ("br;q=0.5, gzip", Some(Gzip)),
        ("br;q=0.5, gzip;q=0.5, zstd;q=0.4", Some(Brotli)),
        ("*", Some(Zstd)),
        ("*;q=0.5, gzip", Some(Gzip)),
        ("*, zstd;q=0", Some(Brotli)),
        ("*;q=0, gzip;q=0.1", Some(Gzip)),
        ("gzip, gzip;q=0", None),
        ("gzip;q=0.5, identity", None),
        ("gzip, identity", Some(Gzip)),
        ("gzip, identity;q=0", Some(Gzip)),
        ("zstd;q=0.2, gzip;q=0.8, identity;q=0.5", Some(Gzip)),
        ("deflate", None),
        ("identity", None),
        ("*;q=0", None),
        ("dcz, dcb", None),
        ("gzip;q=x", None),
        ("", None),
    ] {
        assert_eq!(best_coding(value.as_bytes(), &[Zstd, Brotli, Gzip]), expected, "{value:?}");
    }
    assert_eq!(best_coding(b"gzip, br, zstd", &[Gzip, Brotli]), Some(Gzip));
    assert_eq!(best_coding(b"zstd, br;q=0.1", &[Gzip, Brotli]), Some(Brotli));
    assert_eq!(best_coding(b"gzip", &[]), None);
    let long = format!("gzip,{}", " ".repeat(2000));
    assert_eq!(keyed_coding(long.as_bytes(), &[Gzip]), KeyedForm::Default);
    assert_eq!(keyed_coding(b"br", &[Brotli]), KeyedForm::Text("br".into()));
}

#[test]
fn languages_keep_their_order_of_preference() {
    for (value, expected) in [
        ("de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7", "de-de,de,en-us,en"),
        ("en;q=0.7, DE", "de,en"),
        ("en;q=0, de", "de"),
        ("*", ""),
        ("de, *;q=0.1", "de,*"),
        ("de, DE;q=0.5", "de"),
        ("de;q=x, fr", "fr"),
        ("d\u{e4}", ""),
        ("a,b,c,d,e,f,g,h,i,j", "a,b,c,d,e,f,g,h"),
    ] {
        assert_eq!(form(&ACCEPT_LANGUAGE, value), expected, "{value:?}");
    }
    assert_eq!(
        on_the_wire(&ACCEPT_LANGUAGE, "pt-br,zh-hant-tw,en,*"),
        "pt-BR, zh-Hant-TW;q=0.9, en;q=0.8, *;q=0.7"
    );
}

#[test]
fn the_best_of_the_languages_that_the_origin_has() {
    let among: [Box<str>; 3] = ["en".into(), "de".into(), "pt-BR".into()];
    for (value, expected) in [
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("fr, pt;q=0.9", "pt-br"),
        ("fr, *;q=0.1", "en"),
        ("fr", ""),
        ("", ""),
        ("en-a-bbb", "en"),
    ] {
        assert_eq!(form_among(&ACCEPT_LANGUAGE, value, Some(&among)), expected, "{value:?}");
    }
    let scripts: [Box<str>; 3] = ["en".into(), "zh-Hans".into(), "zh-Hant".into()];
    for (value, expected) in [
        ("zh-TW,zh;q=0.9,en-US;q=0.8", "zh-hant"),
        ("zh-HK", "zh-hant"),
        ("zh-CN,zh;q=0.9", "zh-hans"),
        ("zh", "zh-hans"),
    ] {
        assert_eq!(form_among(&ACCEPT_LANGUAGE, value, Some(&scripts)), expected, "{value:?}");
    }
}

#[test]
fn browsers_share_the_forms_of_pages_and_pictures() {
    let pages = [
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,\
         */*;q=0.8,application/signed-exchange;v=b3;q=0.7",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/png,\
         image/svg+xml,*/*;q=0.8",
        "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
    ];
    for page in pages {
        assert_eq!(form(&ACCEPT, page), form(&ACCEPT, pages[0]), "{page}");
    }
    let newest = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8";
    assert_eq!(form(&ACCEPT, newest), "image/avif,image/webp,image/*,*/*;q=0.8");
    assert_eq!(form(&ACCEPT, "image/png,image/*;q=0.8,*/*;q=0.5"), "image/*,*/*;q=0.8");
    for (value, expected) in [
        ("*/*", ""),
        ("", ""),
        ("application/json, text/plain, */*", "application/json,text/plain,*/*"),
        (
            "application/json, text/javascript, */*; q=0.01",
            "application/json,text/javascript,*/*;q=0.9",
        ),
        ("text/html;q=0, */*", "*/*,text/html;q=0"),
        ("Text/HTML;Level=1, text/*;q=0.3", "text/html;level=1,text/*;q=0.9"),
        ("text/html", "text/html"),
        ("garbage", ""),
        ("application/json, text/html, */*", "application/json,text/html,*/*"),
        (
            "text/html,application/json;q=0.9,*/*;q=0.8",
            "text/html,application/json;q=0.9,*/*;q=0.8",
        ),
        ("text/html;v=\"a,b\"", "text/html;v=\"a,b\""),
    ] {
        assert_eq!(form(&ACCEPT, value), expected, "{value:?}");
    }
}

proptest! {
    /// What the origin receives has the form that it was made from: the key tells all.
    #[test]
    fn what_goes_out_has_the_form_that_it_was_made_from(
        which in 0..3_usize,
        value in "([a-zA-Z*]{1,3}(/[a-z*]{1,3})?(-[A-Z]{2})?( ?; ?q=[01.]{1,4})?[, ]{1,2}){0,12}",
    ) {
        let name = [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE][which].clone();
        let keyed = form(&name, &value);
        if !keyed.is_empty() {
            let wire = on_the_wire(&name, &keyed);
            prop_assert_eq!(form(&name, &wire), keyed);
        }
        if let Some(wire) = default_on_the_wire(&name) {
            prop_assert_eq!(form(&name, wire), "");
        }
    }

    /// Whoever shares a key with another client can read what the other one gets.
    #[test]
    fn the_best_coding_is_one_that_the_client_accepts(
        value in "((gzip|br|zstd|identity|\\*|x-gzip|deflate)( ?; ?q=[01.]{1,4})?[, ]{1,2}){0,6}",
    ) {
        if let Some(coding) = best_coding(value.as_bytes(), &Coding::ALL) {
            let coded = HeaderValue::from_static(coding.as_str());
            let coded = HeaderMap::from_iter([(CONTENT_ENCODING, coded)]);
            prop_assert!(accepts_codings(value.as_bytes(), &coded));
            prop_assert_eq!(form(&ACCEPT_ENCODING, coding.as_str()), coding.as_str());
        }
    }

    #[test]
    fn nothing_panics(which in 0..3_usize, value in "\\PC{0,80}") {
        let name = [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE][which].clone();
        let among: [Box<str>; 1] = ["de".into()];
        let _ = keyed_form(&name, value.as_bytes(), Some(&among));
    }
}
