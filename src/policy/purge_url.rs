//! URLs that operators purge by. One URL names one path; what looks like a pattern names many.

/// Why a URL does not name one path, and what to write; `None` if it does. A `*` is legal in a
/// path, but nobody who types one means it, and what a purge leaves out stays stale.
#[must_use]
pub fn not_one_path(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let is_pattern = |segment: &str| {
        segment.contains('*')
            || (segment.starts_with('{') && segment.ends_with('}'))
            || (segment.starts_with('<') && segment.ends_with('>'))
    };
    let segment = path.split('/').skip(2).find(|segment| is_pattern(segment))?;
    Some(format!(
        "has {segment:?}, and a URL names one path of one host: name each URL, or the tag that all \
         of them carry (`sidecache explain GET /path` shows the tags of a path); write %2A for a \
         `*` in the path itself"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_told_from_paths() {
        for pattern in [
            "http://h/blog/*",
            "http://h/*",
            "http://h/*.css",
            "https://h:1/a/**/b?x=1",
            "http://h/a/{id}",
            "http://h/a/<id>",
            "http://*.example.com/a",
        ] {
            let why = not_one_path(pattern).unwrap_or_else(|| panic!("{pattern}"));
            assert!(why.contains("sidecache explain"), "{why}");
        }
        for path in ["http://h", "http://h/", "http://h/a?q=*", "http://h/a/%2A", "http://h/a:b"] {
            assert_eq!(not_one_path(path), None, "{path}");
        }
    }
}
