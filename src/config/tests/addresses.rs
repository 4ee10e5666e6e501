//! Addresses that are sockets, and the host in the keys.

use super::cases::one;
use super::{diagnostics, parse};
use crate::upstream::UpstreamAddress;

#[test]
fn sockets_to_listen_on() {
    one("[listen]\ntrusted_proxies = [\"unix:/a\"]", 2, 20, "write \"unix\"");
    one("[listen]\naddress = \"unix:a.sock\"", 2, 11, "write it with its folder");
    one("[listen]\naddress = \"/run/a.sock\"", 2, 11, "\"unix:/run/a.sock\"");
    one("[admin]\naddress = \"unix:/run/a.sock\"", 2, 11, "only `address` of [listen]");
    let mode = |mode: &str, text: &str| {
        one(
            &format!(
                "[listen]\naddress = \"unix:/a\"\nsocket_mode = \"{mode}\"\n\
                trusted_proxies = [\"unix\"]"
            ),
            3,
            15,
            text,
        );
    };
    mode("rw-rw----", "not the mode of a file");
    mode("0888", "not the mode of a file");
    mode("+660", "not the mode of a file");
    mode("10660", "not the mode of a file");
    mode("0444", "nobody could connect");
}

#[test]
fn an_app_at_a_socket() {
    let config = parse("[upstream]\nurl = \"unix:///run/app.sock\"\n")
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let target = &config.upstream.target;
    assert_eq!(target.address, UpstreamAddress::Unix("/run/app.sock".into()));
    assert_eq!((&*target.authority, &*target.to_string()), ("localhost", "unix:/run/app.sock"));
    for (url, hint) in [
        ("/run/app.sock", "put unix: before the path"),
        ("unix:app.sock", "write it with its folder"),
        ("unix:/run/app.sock:/", "requests keep their own paths"),
        ("http://unix:/run/app.sock", "without http://"),
        ("http:///run/app.sock", "without http://"),
        ("fastcgi://127.0.0.1:9000", "let it speak HTTP"),
    ] {
        let diagnostics = diagnostics(&format!("[upstream]\nurl = \"{url}\"\n"));
        assert_eq!(diagnostics.errors().count(), 1, "{diagnostics}");
        assert!(diagnostics.to_string().contains(hint), "{diagnostics}");
    }
    let own = "[listen]\naddress = \"unix:/run/a.sock\"\n[upstream]\nurl = \"unix:/run/a.sock\"\n";
    assert!(diagnostics(own).to_string().contains("would loop"));
}

#[test]
fn the_host_in_the_keys() {
    let with = |host: &str| format!("[upstream]\nurl = \"http://a\"\nhost_key = \"{host}\"\n");
    for wrong in ["", "http://app.test", "app.test/a", "a b"] {
        let diagnostics = diagnostics(&with(wrong));
        assert!(diagnostics.to_string().contains("this is not a host"), "{diagnostics}");
    }
    let config = parse(&with("App.test:81")).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.host_key.as_deref(), Some("app.test:81"));
    let field = "[fields]\nat = { host = true }\n[[routes]]\npath = \"/a\"\nkey = [\"at\"]\n";
    let config = parse(&format!("{}{field}", with("app.test")))
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.warnings.iter().any(|warning| warning.message.contains("reads the host")));
}

#[test]
fn the_name_of_a_sidecar_is_plain() {
    for bad in ["", "two words", "a\\u0007", "\u{e9}", &"a".repeat(65)] {
        let text = format!("[upstream]\nurl = \"http://a\"\n[admin]\nname = \"{bad}\"\n");
        let found = diagnostics(&text).to_string();
        assert!(found.contains("proxy.toml:4:8") && found.contains("hint:"), "{bad}: {found}");
    }
    let named = |name: &str| {
        let text = format!("[upstream]\nurl = \"http://a\"\n[admin]\nname = \"{name}\"\n");
        parse(&text).unwrap_or_else(|diagnostics| panic!("{diagnostics}")).admin.name
    };
    assert_eq!(named("web-1.eu:8080").as_deref(), Some("web-1.eu:8080"));
    assert!(parse("[upstream]\nurl = \"http://a\"\n").is_ok_and(|file| file.admin.name.is_none()));
}
