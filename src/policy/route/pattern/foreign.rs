//! Patterns as other tools write them. Taken literally they match nothing, so they are refused, and
//! the same in the form of this file is proposed.

use crate::error::Malformed;

/// The form of a pattern of this file.
pub(super) const HINT: &str =
    "write it as \"/api/v1/campaigns/{id}\", with a trailing {*rest} for everything below";

/// Whether a text is a pattern of this file.
type IsOwn<'a> = &'a dyn Fn(&str) -> bool;

/// Why a pattern is not one of this file but of another tool, with the right form; `None` if it
/// looks like none of theirs.
pub(super) fn foreign(text: &str, is_own: IsOwn<'_>) -> Option<Malformed> {
    if !text.starts_with('/') {
        return foreign_start(text, is_own);
    }
    let parts: Vec<&str> = text[1..].split('/').collect();
    let is_foreign = |part: &&&str| translated(part, false) != **part;
    let part = parts.iter().find(is_foreign)?;
    let hint = match proposal(&parts, is_own) {
        Some(whole) if parts.last() == Some(&"*") && part == parts.last()? => {
            let below = whole.trim_end_matches("{*rest}");
            let one = format!("{below}{{{}}}", if below.contains("{id}") { "item" } else { "id" });
            format!("write {whole:?} for everything below, or {one:?} for one segment")
        }
        Some(whole) => format!("write {whole:?}"),
        None => HINT.to_owned(),
    };
    let what = format!("the path {text:?} has {part:?}, which is a pattern of other tools");
    Some(Malformed::new(what, hint))
}

/// A text that begins with no slash.
fn foreign_start(text: &str, is_own: IsOwn<'_>) -> Option<Malformed> {
    let stripped = text.trim_start_matches(['^', '~', '*', ' ']);
    let (what, inner) = if let Some((_, after)) = text.split_once("://") {
        ("is a URL", after.find('/').map_or("/", |slash| &after[slash..]))
    } else if stripped.len() < text.len() && stripped.starts_with('/') {
        ("is a pattern of other tools", stripped.trim_end_matches('$'))
    } else {
        return None;
    };
    let parts: Vec<&str> = inner.get(1..)?.split('/').collect();
    let hint = proposal(&parts, is_own)
        .map_or_else(|| HINT.to_owned(), |whole| format!("write the path alone: {whole:?}"));
    Some(Malformed::new(format!("the path {text:?} {what}"), hint))
}

/// The same pattern in the form of this file, if there is one.
fn proposal(parts: &[&str], is_own: IsOwn<'_>) -> Option<String> {
    let mut whole = String::new();
    for (at, part) in parts.iter().enumerate() {
        let own = translated(part, at + 1 == parts.len());
        whole.push('/');
        whole.push_str(&own);
        if *part == "**" && at + 1 < parts.len() {
            whole.truncate(whole.len() - own.len());
            whole.push_str("{*rest}");
            break;
        }
    }
    // All stars have one name so far.
    let mut number = 1;
    while let Some(at) = whole.rfind("{id}").filter(|at| whole[..*at].contains("{id}")) {
        number += 1;
        whole.replace_range(at..at + 4, &format!("{{id{number}}}"));
    }
    is_own(&whole).then_some(whole)
}

/// What regular expressions write for a text, without one that is a part of another one.
const EXPRESSIONS: [&str; 10] =
    ["(.*)", "(.+)", "([^/]+)", "([^/]*)", "[^/]+", "[^/]*", "[0-9]+", ".+", ".*", "\\d+"];

/// A segment in the form of this file; itself, if it is in that form.
fn translated(part: &str, is_last: bool) -> String {
    if let Some(expression) = EXPRESSIONS.iter().find(|expression| part.contains(**expression)) {
        let part = part.replace(expression, "*");
        return translated(part.trim_end_matches('$'), is_last);
    }
    let everything = |name: &str| {
        if is_last { format!("{{*{name}}}") } else { format!("{{{name}}}") }
    };
    match part {
        "*" | "**" => {
            return if is_last { "{*rest}".to_owned() } else { "{id}".to_owned() };
        }
        _ => {}
    }
    if let Some(name) = part.strip_prefix('*').filter(|name| is_name(name)) {
        return everything(name);
    }
    let mut own = String::new();
    let mut rest = part;
    // A `:` is a capture at the beginning alone: `/items:batch` is text.
    let has_colons = part.starts_with(':');
    while let Some(first) = rest.chars().next() {
        let (taken, piece) = match first {
            '{' => braces(rest, &everything),
            '<' => angles(rest, &everything),
            '[' => brackets(rest, &everything),
            ':' if has_colons => colon(rest, &everything),
            '*' => Some((stars(rest), "{id}".to_owned())),
            _ => None,
        }
        .unwrap_or_else(|| (first.len_utf8(), first.to_string()));
        own.push_str(&piece);
        rest = &rest[taken..];
    }
    own
}

type Everything<'a> = &'a dyn Fn(&str) -> String;

fn stars(text: &str) -> usize {
    text.len() - text.trim_start_matches('*').len()
}

/// `{id:int}`, `{id?}`, `{path...}`, `{path:path}`, `{**path}`; and `{id}`, `{*path}`.
fn braces(text: &str, everything: Everything<'_>) -> Option<(usize, String)> {
    let mut depth = 0;
    let end = text.char_indices().find_map(|(at, c)| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        (depth == 0).then_some(at)
    })?;
    let inner = &text[1..end];
    let name_start = stars(inner);
    let name = leading_name(&inner[name_start..], "_-")?;
    let after = &inner[name_start + name.len()..];
    let is_own = after.is_empty() && name_start < 2;
    let is_everything = name_start > 0
        || [":path", ":.*", ":.+", "...", "=**"].iter().any(|sign| after.starts_with(sign));
    let piece = match (is_own, is_everything) {
        (true, _) => text[..=end].to_owned(),
        (false, true) => everything(name),
        (false, false) => format!("{{{name}}}"),
    };
    Some((end + 1, piece))
}

/// `<id>`, `<int:id>`, `<path:rest>`.
fn angles(text: &str, everything: Everything<'_>) -> Option<(usize, String)> {
    let (inner, _) = text[1..].split_once('>')?;
    let (kind, name) = inner.split_once(':').unwrap_or(("", inner));
    let piece = if kind == "path" { everything(name) } else { format!("{{{name}}}") };
    Some((inner.len() + 2, piece))
}

/// `[id]`, `[...rest]`, `[[...rest]]`. An index such as `[0]` is text.
fn brackets(text: &str, everything: Everything<'_>) -> Option<(usize, String)> {
    let end = text.find(']')?;
    let closing = text[end..].len() - text[end..].trim_start_matches(']').len();
    let inner = text[..end].trim_start_matches('[');
    if inner.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let piece = match inner.strip_prefix("...") {
        Some(name) => everything(name),
        None => format!("{{{inner}}}"),
    };
    Some((end + closing, piece))
}

/// `:id`, `:id?`, `:id(\d+)`, `:path*`.
fn colon(text: &str, everything: Everything<'_>) -> Option<(usize, String)> {
    let name = leading_name(&text[1..], "_")?;
    let mut end = 1 + name.len();
    if text[end..].starts_with('(') {
        end += text[end..].find(')').map_or(0, |close| close + 1);
    }
    let sign = text[end..].chars().next();
    let piece = match sign {
        Some('*' | '+') => everything(name),
        _ => format!("{{{name}}}"),
    };
    Some((end + usize::from(matches!(sign, Some('*' | '+' | '?'))), piece))
}

/// The letters, digits and these marks that a text begins with.
fn leading_name<'a>(text: &'a str, marks: &str) -> Option<&'a str> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || marks.contains(c)))
        .unwrap_or(text.len());
    Some(&text[..end]).filter(|name| !name.is_empty())
}

fn is_name(text: &str) -> bool {
    leading_name(text, "_") == Some(text)
}
