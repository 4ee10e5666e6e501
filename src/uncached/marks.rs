//! Marks: parameters of queries by which advertisers and mailers follow a link, and which apps
//! ignore. Pages are compared without them, so that it shows whether they change anything.
//!
//! SECURITY: a parameter is taken for a mark by its name alone, never by what was seen: whoever
//! sends `page=junk` again and again gets the same each time, and `page` matters all the same.

/// The names, and the beginnings of names.
const NAMES: &[&str] = &[
    "gclid",
    "gclsrc",
    "dclid",
    "gbraid",
    "wbraid",
    "fbclid",
    "msclkid",
    "yclid",
    "ttclid",
    "twclid",
    "igshid",
    "li_fat_id",
    "mc_cid",
    "mc_eid",
    "_hsenc",
    "_hsmi",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_term",
    "utm_content",
    "utm_id",
];

/// Whether a parameter is a mark, by its name.
#[must_use]
pub fn is_mark(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The query without its marks, and the marks, each as they came.
#[must_use]
pub fn split(query: &str) -> (Vec<&str>, Vec<&str>) {
    let is_one = |pair: &&str| is_mark(pair.split_once('=').map_or(*pair, |(name, _)| name));
    let (marks, rest) = query.split('&').partition(is_one);
    (rest, marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_what_may_matter() {
        for (query, rest, marks) in [
            ("utm_source=a&b=2&gclid", &["b=2"][..], &["utm_source=a", "gclid"][..]),
            (
                "utm_sourced=1&UTM_SOURCE=2&%75tm_source=3",
                &["utm_sourced=1", "UTM_SOURCE=2", "%75tm_source=3"],
                &[],
            ),
            ("utm_source=1", &[], &["utm_source=1"]),
            ("ref=a&source=b", &["ref=a", "source=b"], &[]),
        ] {
            assert_eq!(split(query), (rest.to_vec(), marks.to_vec()), "{query}");
        }
    }
}
