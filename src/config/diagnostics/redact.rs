//! Finds the secrets in the text of `proxy.toml`, so that no diagnostic ever shows one. It works on
//! the plain text, because a file with syntax errors contains secrets too.

use std::collections::HashMap;
use std::ops::Range;

const SECRET_WORDS: [&str; 3] = ["password", "secret", "token"];
/// What a name of a secret contains.
const SECRET_PARTS: [&str; 5] = ["passw", "passphrase", "secret", "token", "pwd"];
/// What a name of a secret ends with, without `_` and `-`.
const SECRET_ENDINGS: [&str; 6] =
    ["apikey", "privatekey", "accesskey", "signingkey", "encryptionkey", "authkey"];
/// What the last word of a name of a secret is.
const SECRET_LAST_WORDS: [&str; 9] =
    ["pass", "pw", "auth", "authorization", "bearer", "credential", "credentials", "creds", "pin"];
/// Values of keys that are named like a secret, and are none: the forms of an `auth` field.
const PLAIN_VALUES: [&str; 2] = ["token", "prefix"];
/// What the last word of a name of an address is.
const ADDRESS_WORDS: [&str; 6] = ["url", "uri", "dsn", "address", "host", "node"];

/// How long a value without a name is at least that may be a token.
const MIN_TOKEN_CHARS: usize = 20;
/// The same for one of a single case, as in hexadecimal digits.
const MIN_PLAIN_TOKEN_CHARS: usize = 32;

/// The ranges to print as stars, in order and apart from each other: values of keys that look like
/// secrets, the user parts of URLs and addresses, and what looks like a token.
#[must_use]
pub fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut found = keyed(text);
    found.extend(user_parts(text));
    found.extend(bare_user_parts(text));
    found.extend(token_like(text));
    found.sort_unstable_by_key(|range| range.start);
    let mut apart: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

/// Values of keys that are named like a secret, or nearly so: a typo in the name must not reveal
/// the value.
fn keyed(text: &str) -> Vec<Range<usize>> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    // A file has few words, each many times.
    let mut known = HashMap::new();
    while at < bytes.len() {
        if !is_word(bytes[at]) {
            at += 1;
            continue;
        }
        let length = bytes[at..].iter().take_while(|&&b| is_word(b)).count();
        let end = at + length;
        let word = &text[at..end];
        if *known.entry(word).or_insert_with(|| is_secret_name(word)) {
            match list_after(text, end) {
                Some(list) => found.extend(list),
                None => found.extend(value_after(text, end)),
            }
        }
        at = end;
    }
    found
}

/// Whether a key of this name, or of the name that was probably meant, holds a secret.
fn is_secret_name(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    if word.ends_with("_file") || word.ends_with("-file") {
        return false;
    }
    let joined: String = word.chars().filter(|c| !matches!(c, '_' | '-')).collect();
    SECRET_PARTS.iter().any(|part| word.contains(part))
        || SECRET_ENDINGS.iter().any(|ending| joined.ends_with(ending))
        || SECRET_LAST_WORDS.contains(&last_word(&word))
        || (word.len() > 3 && SECRET_WORDS.iter().any(|secret| is_misspelt(&word, secret)))
}

/// Whether two changes at most make one of the other. Most words are told apart by their lengths.
fn is_misspelt(word: &str, secret: &str) -> bool {
    word.len().abs_diff(secret.len()) <= 2 && strsim::osa_distance(word, secret) <= 2
}

/// `key` of `api_key`.
fn last_word(name: &str) -> &str {
    name.rsplit(['_', '-']).next().unwrap_or(name)
}

/// The strings of a list that follows a key, as in `secret = ["new", "old"]`. They may stand on
/// several lines. `None` where no list follows.
fn list_after(text: &str, key_end: usize) -> Option<Vec<Range<usize>>> {
    let rest = text[key_end..].trim_start_matches(['"', '\'']).trim_start_matches([' ', '\t']);
    let rest = rest.strip_prefix('=')?.trim_start_matches([' ', '\t']).strip_prefix('[')?;
    let (start, mut found) = (text.len() - rest.len(), Vec::new());
    let mut at = 0;
    while let Some(byte) = rest.as_bytes().get(at) {
        match byte {
            b']' => return Some(found),
            // A comment may hold an earlier secret.
            b'#' => {
                let end = rest[at..].find('\n').map_or(rest.len(), |end| at + end);
                found.push(start + at + 1..start + end);
                at = end;
            }
            quote @ (b'"' | b'\'') => {
                let content = &rest[at + 1..];
                let content = &content[..content.find('\n').unwrap_or(content.len())];
                let length = match quote {
                    b'"' => end_of_string(content),
                    _ => content.find('\'').unwrap_or(content.len()),
                };
                if !is_reference(&content[..length]) {
                    found.push(start + at + 1..start + at + 1 + length);
                }
                at += length + 2;
            }
            b',' | b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            // It is no list of strings: nobody can tell where it ends.
            _ => {
                let end = rest[at..].find('\n').map_or(rest.len(), |end| at + end);
                found.push(start + at..start + end);
                return Some(found);
            }
        }
    }
    Some(found)
}

/// Whether a text is a lone `${NAME}`.
fn is_reference(text: &str) -> bool {
    text.strip_prefix("${")
        .and_then(|inner| inner.strip_suffix('}'))
        .is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

/// The value that follows a key, without its quotes. A lone `${NAME}` is not a secret.
fn value_after(text: &str, key_end: usize) -> Option<Range<usize>> {
    let rest = &text[key_end..];
    let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest).trim_start_matches([' ', '\t']);
    // A colon separates as in YAML if the key begins its line; elsewhere it is part of a tag such
    // as `token:{id}`.
    let line_start = text[..key_end].rfind('\n').map_or(0, |newline| newline + 1);
    // A comment is a line of its own.
    let line = text[line_start..key_end].rsplit('#').next().unwrap_or_default();
    let begins_line = line.trim_start().bytes().all(|b| !b.is_ascii_whitespace() && b != b'=');
    let separators: &[char] = if begins_line { &['=', ':'] } else { &['='] };
    let (separated, rest) = match rest.strip_prefix(separators) {
        Some(rest) => (true, rest.trim_start_matches([' ', '\t'])),
        None => (false, rest),
    };
    let start = text.len() - rest.len();
    let line_end = rest.find('\n').unwrap_or(rest.len());
    let (skip, length) =
        if let Some(quote) = ["\"\"\"", "'''"].into_iter().find(|quote| rest.starts_with(quote)) {
            (3, rest[3..].find(quote).unwrap_or(rest.len() - 3))
        } else if rest.starts_with('\'') {
            (1, rest[1..line_end].find('\'').unwrap_or(line_end - 1))
        } else if rest.starts_with('"') {
            (1, end_of_string(&rest[1..line_end]))
        } else if separated && !rest.starts_with('{') && line_end > 0 {
            (0, line_end)
        } else {
            return None;
        };
    let value = start + skip..start + skip + length;
    let is_plain =
        is_reference(&text[value.clone()]) || PLAIN_VALUES.contains(&&text[value.clone()]);
    (!is_plain).then_some(value)
}

/// The length of a basic string's content.
fn end_of_string(content: &str) -> usize {
    let mut escaped = false;
    for (at, c) in content.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    content.len()
}

/// `user:password` of every URL. The last `@` ends it: passwords may contain an unencoded `/`, `@`
/// or space.
fn user_parts(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut looked_to = 0;
    text.match_indices("://").filter_map(move |(at, separator)| {
        let start = at + separator.len();
        // A second URL up to the same end has the same last `@`.
        if start <= looked_to {
            return None;
        }
        let line_end = text[start..].find(['\n', '"', '\'']).map_or(text.len(), |end| start + end);
        looked_to = line_end;
        let at_sign = text[start..line_end].rfind('@')?;
        Some(start..start + at_sign)
    })
}

/// `user:password` of every address without a scheme, as in `url = "user:password@host"`. What
/// precedes the last `@` of a line is hidden from the word with the first colon on. Without a colon
/// it is hidden only where the key names an address.
fn bare_user_parts(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut next = 0;
    text.split_inclusive('\n')
        .map(move |line| {
            next += line.len();
            (next - line.len(), line)
        })
        .flat_map(|(at, line)| {
            let comment = comment_of(line);
            [(at, &line[..comment]), (at + comment, &line[comment..])]
        })
        .filter_map(|(at, part)| {
            let before = &part[..part.rfind('@')?];
            let key = before.split('=').next().unwrap_or_default().trim().trim_matches('"');
            let key = last_word(key.rsplit('.').next().unwrap_or(key)).to_ascii_lowercase();
            let start = match before.find(':') {
                Some(colon) if before[colon..].starts_with("://") => colon + "://".len(),
                Some(colon) => value_start(before, colon),
                None if ADDRESS_WORDS.contains(&key.as_str()) => {
                    before.find('=').map_or(0, |equals| value_start(before, equals + 1))
                }
                None => return None,
            };
            let start =
                start + before[start..].bytes().take_while(|b| b" \t\"'".contains(b)).count();
            Some(at + start..at + before.len())
        })
}

/// Where the word that reaches to this place begins.
fn value_start(text: &str, end: usize) -> usize {
    let is_before = |c: char| c.is_whitespace() || "\"'=[{,(".contains(c);
    let last = text[..end].char_indices().rfind(|&(_, c)| is_before(c));
    last.map_or(0, |(at, c)| at + c.len_utf8())
}

/// Where the comment after a value begins. A `#` within a word may be part of a password.
fn comment_of(line: &str) -> usize {
    let ends_value = |before: &str| before.ends_with(['"', '\'', ']', '}']);
    line.match_indices('#')
        .map(|(at, _)| at)
        .find(|&at| {
            let before = &line[..at];
            before.trim().is_empty()
                || before.ends_with([' ', '\t']) && ends_value(before.trim_end_matches([' ', '\t']))
        })
        .unwrap_or(line.len())
}

/// Words that look made by chance, wherever they are: a token under a key of any name.
fn token_like(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+');
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            let rest = &text.as_bytes()[at..];
            let length = rest.iter().take_while(|&&b| is_part(b)).count();
            let word = at..at + length;
            at += length.max(1);
            if is_token_like(&rest[..length]) {
                return Some(word);
            }
        }
        None
    })
}

fn is_token_like(word: &[u8]) -> bool {
    if word.len() < MIN_TOKEN_CHARS {
        return false;
    }
    let has = |test: fn(&u8) -> bool| word.iter().any(test);
    let (digits, lower, upper) =
        (has(u8::is_ascii_digit), has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase));
    let of_one_case = word.len() >= MIN_PLAIN_TOKEN_CHARS
        && (lower || upper)
        && word.iter().all(u8::is_ascii_alphanumeric);
    digits && (lower && upper || of_one_case)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> Vec<&str> {
        secrets(text).into_iter().map(|span| &text[span]).collect()
    }

    #[test]
    fn secrets_are_found_by_name_and_place() {
        assert_eq!(hidden("password = \"hunter2\" # x"), ["hunter2"]);
        assert_eq!(hidden("redis.password='hunter2'"), ["hunter2"]);
        assert_eq!(hidden("pasword = \"hun\\\"ter2\""), ["hun\\\"ter2"]);
        assert_eq!(hidden("\"secret\" = \"\"\"\nhunter2\n\"\"\""), ["\nhunter2\n"]);
        assert_eq!(hidden("token = \"hunter2"), ["hunter2"]);
        assert_eq!(hidden("token: hunter2\nx"), ["hunter2"]);
        assert_eq!(hidden("# password: hunter2\nx"), ["hunter2"]);
        assert_eq!(hidden("ttl = \"5m\" # api_key: hunter2\nx"), ["hunter2"]);
        assert_eq!(hidden("url = \"redis://user:hun/ter@2@host:1/0\""), ["user:hun/ter@2"]);
        assert!(
            hidden("url = \"redis-sentinel://h?sentinelPassword=hunter2&node=i\"")
                .concat()
                .contains("hunter2")
        );
    }

    #[test]
    fn likely_slips_are_hidden() {
        for slip in [
            "url = \"user:hunter2@host\"",
            "url = \"user:hun/ter'2@hunter2@host:6379/0\" # the cache",
            "url = user:hunter2@host",
            "url = \"//user:hunter2@host\"",
            "url =\u{a0}user:hunter2@host",
            "url = \"redis:/user:hunter2@host\"",
            "url = \"redis:user:hunter2@host\"",
            "url = \":hunter2@host\"",
            "url = \"hunter2@host\"",
            "redis.url = 'hunter2@host'",
            "{ url = \"user:hunter2@host\" }",
            "# url = \"user:hunter2@host\"",
            "user:hunter2@host",
            "url = \"redis://user:hun'ter\"hunter2@host\"",
            "passwd = \"hunter2\"",
            "pass = \"hunter2\"",
            "pass = hunter2",
            "pass: hunter2",
            "db_pass = 'hunter2'",
            "pw = \"hunter2\"",
            "pwd = \"hunter2\"",
            "secret_key = \"hunter2\"",
            "api_key = \"hunter2\"",
            "apiKey = \"hunter2\"",
            "x-api-key = \"hunter2\"",
            "private_key = \"hunter2\"",
            "auth = \"hunter2\"",
            "authorization = \"Bearer hunter2\"",
            "credentials = \"hunter2\"",
            "key = \"ghp_hunter2Ab3dE5fG7hJ9kL\"",
            "x = \"0123456789abcdef0123456789hunter2\"",
            "eyJhbGciOiJIUzI1NiJ9hunter2",
        ] {
            let mut shown = slip.as_bytes().to_vec();
            for span in secrets(slip) {
                shown[span].fill(b'*');
            }
            let shown = String::from_utf8(shown).expect("ASCII");
            assert!(!shown.contains("hunter2") && !shown.contains("hun"), "{slip}: {shown}");
        }
    }

    #[test]
    fn any_white_space_may_stand_before_a_secret() {
        assert_eq!(hidden("url = \u{a0}user:pw@host"), ["user:pw"]);
    }

    #[test]
    fn r1020_each_secret_of_a_list_is_hidden() {
        let field = "user = { cookie = \"s\", secret = [\"hunter2\", '${NEW}', 'old\"er'] }";
        assert_eq!(hidden(field), ["hunter2", "old\"er"]);
        assert_eq!(hidden("secret = [\n \"hunter2\", # hunter1\n \"x]y\",\n]\nz = 1").len(), 3);
        assert_eq!(hidden("secret = [\"${A}\", \"${B}\"]"), [""; 0]);
        assert!(hidden("secret = [hunter2\nx = 1").concat().contains("hunter2"));
        for broken in ["secret = [", "secret = [\"", "secret = [\"a", "secret=['", "secret = [#"] {
            let _ = hidden(broken);
        }
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for plain in [
            "user = { auth = \"prefix\", length = 20 }",
            "pass_headers = [\"x-request-id\"]",
            "url = \"redis://127.0.0.1:6379/0\" # ask ops@example.com",
            "tags = [\"campaigns:{tenant}\", \"campaign:{id}\"]",
            "key = [\"tenant\"]",
            "path = \"/@{user}/posts\"",
            "guard = \"bypass\"",
            "rediss://${REDIS_HOST_OF_THE_SECOND_ZONE_2}:6380",
            "name = \"a-route-with-a-long-name-of-version-2\"",
            "hosts = [\"sidecache.production-cluster-2.internal\"]",
        ] {
            assert_eq!(hidden(plain), [""; 0], "{plain}");
        }
        assert!(
            hidden(
                "token = { auth = \"token\" }\ntoken_file = \"/run/token\"\ntags = \
                        [\"token:{id}\"]\npath = \"/a\""
            )
            .is_empty()
        );
        assert!(hidden("token = \"${ADMIN_TOKEN}\"").is_empty());
        assert_eq!(hidden("token = \"${ADMIN_TOKEN:-hunter2}\"").len(), 1);
    }

    #[test]
    fn white_space_may_take_several_bytes() {
        assert_eq!(value_start("=\u{2029}ab", 6), 4);
        let found: Vec<_> = bare_user_parts("J\u{2029}:f@x").collect();
        assert_eq!(found.len(), 1);
    }
}
