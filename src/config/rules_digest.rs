//! A digest of the rules of a file, by which sidecars are compared that should run the same.
//!
//! It covers what decides on responses: routes, purge rules, fields, credentials, tags, freshness,
//! the mode and the origin. It leaves out what may differ between sidecars that share a cache
//! (where they listen, their tiers, limits and logs), comments, the order of routes, and every
//! value that is secret. It is made of the text as written, so variables count by their names.

use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use crate::units::hex;

/// The parts of the file that are no rules.
const NO_RULES: [&str; 13] = [
    "listen",
    "admin",
    "memory",
    "redis",
    "limits",
    "log",
    "trace",
    "debug",
    "watch",
    "purge_requests",
    "notify",
    "sources",
    "expect",
];

/// How many bytes of the hash are kept: enough to tell files apart, for people to read.
const DIGEST_BYTES: usize = 8;

/// The digest, as 16 hexadecimal digits.
pub(super) fn rules_digest(file: &Table) -> String {
    let mut hash = Sha256::new();
    let mut names: Vec<&String> =
        file.keys().filter(|name| !NO_RULES.contains(&name.as_str())).collect();
    names.sort();
    for name in names {
        add_text(&mut hash, name);
        match (name.as_str(), &file[name.as_str()]) {
            // Their order does not matter.
            ("routes" | "purges" | "apps", Value::Array(rules)) => {
                let mut digests: Vec<[u8; 32]> = rules.iter().map(digest).collect();
                digests.sort_unstable();
                for one in &digests {
                    hash.update(one);
                }
            }
            // SECURITY: the digest goes to other sidecars. A short secret could be found by it.
            ("jwt", Value::Table(jwt)) => {
                let mut shown = jwt.clone();
                shown.remove("secret");
                hash.update(digest(&Value::Table(shown)));
            }
            (_, value) => hash.update(digest(value)),
        }
    }
    hex(&hash.finalize()[..DIGEST_BYTES])
}

fn digest(value: &Value) -> [u8; 32] {
    let mut hash = Sha256::new();
    add(&mut hash, value);
    hash.finalize().into()
}

/// Adds a value so that no other value adds the same bytes: kinds are marked, lengths come first.
fn add(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Table(table) => {
            // A field may be called `secret`; the secret of a field is no table.
            let counts = |key: &&String| key.as_str() != "secret" || table[key.as_str()].is_table();
            let mut keys: Vec<&String> = table.keys().filter(counts).collect();
            keys.sort();
            hash.update(b"{");
            hash.update((keys.len() as u64).to_be_bytes());
            for key in keys {
                add_text(hash, key);
                add(hash, &table[key.as_str()]);
            }
        }
        Value::Array(values) => {
            hash.update(b"[");
            hash.update((values.len() as u64).to_be_bytes());
            for value in values {
                add(hash, value);
            }
        }
        other => {
            hash.update(b"=");
            add_text(hash, &other.to_string());
        }
    }
}

fn add_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[listen]
address = "127.0.0.1:1"
[upstream]
url = "http://127.0.0.1:8000"
[admin]
token = "a-token-of-the-operator"
[[routes]]
path = "/a"
ttl = "5m"
tags = ["a", "b"]
[[routes]]
path = "/b"
"#;

    fn of(text: &str) -> String {
        rules_digest(&text.parse().expect("TOML"))
    }

    #[test]
    fn what_may_differ_between_sidecars_changes_nothing() {
        let same = [
            format!("# a comment\n{FILE}"),
            FILE.replace("127.0.0.1:1", "0.0.0.0:80"),
            FILE.replace("a-token-of-the-operator", "another-token"),
            FILE.replace("ttl = \"5m\"\ntags = [\"a\", \"b\"]", "tags = ['a', 'b']\nttl = '5m'"),
            format!("{FILE}[memory]\nsize = \"0\"\n[log]\nlevel = \"debug\"\n"),
            format!("{}[[routes]]\npath = \"/a\"\nttl = \"5m\"\ntags = [\"a\", \"b\"]\n", {
                let (head, rest) = FILE.split_once("[[routes]]").expect("routes");
                let (_, second) = rest.split_once("[[routes]]").expect("two of them");
                format!("{head}[[routes]]{second}")
            }),
        ];
        assert_eq!(of(FILE).len(), 16);
        for text in same {
            assert_eq!(of(&text), of(FILE), "{text}");
        }
    }

    #[test]
    fn the_secret_of_tokens_is_not_in_it() {
        let with = |jwt: &str| of(&format!("{FILE}[jwt]\nalgorithms = [\"HS256\"]\n{jwt}"));
        assert_eq!(with("secret = \"one\""), with("secret = \"two\""));
        assert_ne!(with("issuer = [\"one\"]"), with("issuer = [\"two\"]"));
    }

    #[test]
    fn another_rule_is_another_digest() {
        let others = [
            FILE.replace("5m", "6m"),
            FILE.replace("[\"a\", \"b\"]", "[\"b\", \"a\"]"),
            FILE.replace("[\"a\", \"b\"]", "[\"ab\"]"),
            FILE.replace("/b", "/c"),
            FILE.replace("[[routes]]\npath = \"/b\"", ""),
            FILE.replace("8000", "8001"),
            format!("mode = \"off\"\n{FILE}"),
            format!("{FILE}[[purges]]\npath = \"/b\"\n"),
            format!("{FILE}[fields]\nx = {{ header = \"x\" }}\n"),
            format!("{FILE}[fields]\nx = {{ cookie = \"s\", format = \"flask\" }}\n"),
        ];
        let mut digests: Vec<String> = others.iter().map(|text| of(text)).collect();
        digests.push(of(FILE));
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), others.len() + 1);
    }
}
