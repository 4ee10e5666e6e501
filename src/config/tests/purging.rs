//! What purges are made of: tags of responses, folders, purge requests.

use super::parse;
use crate::config::model::Config;
use crate::policy::folder::Folder;
use crate::policy::template::Template;

const HEAD: &str = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n";

fn told(text: &str) -> String {
    parse(&format!("{HEAD}{text}")).err().map(|found| found.to_string()).unwrap_or_default()
}

fn config(text: &str) -> Config {
    parse(&format!("{HEAD}{text}")).unwrap_or_else(|problems| panic!("{problems}"))
}

fn route(keys: &str) -> String {
    format!("[[routes]]\npath = \"/a/{{id}}\"\nttl = \"5m\"\n{keys}\n")
}

#[test]
fn tags_of_a_route_and_of_a_write_may_read_the_response() {
    let text = route(
        "scope = \"public\"\ntags = [\"a:{id}:{response:/items/*/id}\", \"b:{response:/x?}\"]",
    ) + "[[purges]]\npath = \"/a\"\ntags = [\"a:{response:/id}\"]\n";
    let config = config(&text);
    let route = config.routes.iter().next().expect("a route");
    assert!(route.reads_response && route.spec.tags.iter().all(Template::reads_response));
    assert!(route.fields.iter().all(|field| &*field.name == "id"), "no key has the response");
    assert!(route.headers.is_dropped(&http::header::ACCEPT_ENCODING));
    assert!(config.purges[0].tags[0].reads_response() && !config.purges[0].reads_body());
}

#[test]
fn mistakes_in_tags_of_responses_are_pointed_at() {
    for (keys, hint) in [
        ("tags = [\"a:{response:id}\"]", "no JSON pointer"),
        ("tags = [\"a:{response:}\"]", "no JSON pointer"),
        ("tags = [\"a:{response:/}\"]", "no JSON pointer"),
        ("tags = [\"a:{response:/~2}\"]", "no JSON pointer"),
        ("key = [\"response:/id\"]", "for tags alone"),
        (
            "tags = [\"a:{response:/id}\"]\npass_headers = [\"Accept-Encoding\"]",
            "the app may compress it",
        ),
    ] {
        let told = told(&route(keys));
        assert!(told.contains(hint), "{keys}: {told}");
    }
}

#[test]
fn a_purge_rule_may_name_a_folder_in_place_of_tags() {
    let under = |text: &str| format!("{}[[purges]]\npath = \"/a\"\n{text}\n", route(""));
    let config = config(&under("under = \"/A/b\""));
    assert_eq!(config.purges[0].under.as_ref().map(Folder::as_str), Some("/a/b/"));
    let route = config.routes.iter().next().expect("a route");
    assert_eq!(route.folders.named.len(), 1);
    for (text, hint) in [
        ("under = \"/1/2/3/4/5/\"", "5 segments"),
        ("under = \"/\"", "is every path"),
        ("under = \"/a/*\"", "not plain text"),
        ("under = \"a\"", "start it with `/`"),
        ("", "tags = [\"…\"]"),
        ("under = 5", "string"),
    ] {
        let told = told(&under(text));
        assert!(told.contains(hint), "{text}: {told}");
    }
}

#[test]
fn the_folders_of_other_routes_change_no_key() {
    let two = route("") + "[[routes]]\npath = \"/b/{id}\"\nttl = \"5m\"\n";
    let fingerprints = |more: &str| -> Vec<[u8; 8]> {
        config(&format!("{more}{two}")).routes.iter().map(|route| route.fingerprint).collect()
    };
    let plain = fingerprints("");
    let named = fingerprints("[[purges]]\npath = \"/x\"\nunder = \"/a/\"\n");
    assert!(plain[0] != named[0] && plain[1] == named[1]);
    let every = fingerprints("[tags]\nfolders = true\n");
    assert!(plain[0] != every[0] && plain[1] != every[1]);
    let requests = fingerprints("[purge_requests]\nfrom = [\"unix\"]\n");
    assert_eq!(requests, every, "whoever may send them may name any folder");
}

#[test]
fn purge_requests_need_an_address_or_a_token() {
    let section = |keys: &str| format!("[purge_requests]\n{keys}\n");
    for keys in [
        "from = [\"127.0.0.1\", \"10.0.0.0/8\", \"unix\"]",
        "token = \"0123456789abcdef\"",
        "token = \"0123456789abcdef\"\ntoken_header = \"X-Own\"\nfrom = [\"::1\"]",
    ] {
        assert!(config(&section(keys)).purge_requests.is_some(), "{keys}");
    }
    assert!(config("").purge_requests.is_none());
    for (keys, hint) in [
        ("", "anybody could purge"),
        ("from = []", "anybody could purge"),
        ("from = [\"10.0.0.0/33\"]", "not a network"),
        ("token = \"tiny-one\"", "shorter than 16"),
        ("token = \"0123456789abcdef\"\ntoken_header = \"a b\"", "header"),
        ("form = [\"127.0.0.1\"]", "did you mean `from`?"),
    ] {
        let told = told(&section(keys));
        assert!(told.contains(hint), "{keys}: {told}");
        assert!(!told.contains("0123456789abcdef"), "{told}");
    }
}
