//! The conditions of a rule as a text: part of the name of a route, by which metrics, the admin API
//! and switches tell routes of one path apart.

use std::fmt::Write as _;

/// A text for conditions, each with its values: `host=a.test, query.action=list|show`. The order of
/// neither counts.
#[must_use]
pub fn match_label<'a>(conditions: impl Iterator<Item = (String, Vec<&'a str>)>) -> String {
    let mut all: Vec<String> = conditions
        .map(|(name, mut values)| {
            values.sort_unstable();
            values.dedup();
            let values: Vec<String> = values.into_iter().map(escaped).collect();
            format!("{}={}", escaped(&name), values.join("|"))
        })
        .collect();
    all.sort();
    all.join(", ")
}

/// The name of a route with this path and these conditions.
#[must_use]
pub fn labelled(path: &str, label: &str) -> String {
    if label.is_empty() { path.to_owned() } else { format!("{path} [{label}]") }
}

/// A text in which nothing can be taken for the signs around it, and that a header can hold.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !b"%|,[]=".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_shows_conditions_in_one_order() {
        let one = [
            ("query.action".to_owned(), vec!["show", "list", "list"]),
            ("host".to_owned(), vec!["a.test:80"]),
        ];
        let label = match_label(one.into_iter());
        assert_eq!(label, "host=a.test:80, query.action=list|show");
        assert_eq!(labelled("/x", &label), "/x [host=a.test:80, query.action=list|show]");
        assert_eq!(labelled("/x", ""), "/x");
        let odd = [("header.x-y".to_owned(), vec!["a,b|c]\n\u{e9}"])];
        assert_eq!(match_label(odd.into_iter()), "header.x-y=a%2Cb%7Cc%5D%0A%C3%A9");
    }
}
