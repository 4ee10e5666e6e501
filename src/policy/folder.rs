//! Folders: the first segments of a path, by which everything below them is purged at once.
//!
//! An entry carries a tag for each folder that its path is in and that a purge may name: those of
//! `under` in purge rules, and with `[tags] folders = true` the first four of every path. A purge
//! replaces one nonce, however many entries there are.
//!
//! Invariant: entries and purges read a path in the same form, in which escapes, case and a final
//! slash do not count. An entry is in the folder of its own path with its extension and without.

use std::borrow::Cow;

use crate::error::Malformed;
use crate::policy::fold::fold;
use crate::policy::request_target;
use crate::policy::route::Pattern;
use crate::policy::tag::Tag;

/// How many segments a folder may have.
pub const MAX_FOLDER_SEGMENTS: usize = 4;

/// What is allowed as a folder.
pub const FOLDER_FORM: &str =
    "a path of 1 to 4 segments of plain text, such as \"/api/v1/reports/\"";

/// The first segments of a path: `/api/v1/reports/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(Box<str>);

impl Folder {
    /// Reads a folder, with or without its final slash.
    ///
    /// # Errors
    /// It is not the beginning of one path, or it is too deep.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let form = "write it as \"/api/v1/reports/\"";
        if text.contains(['*', '{', '}', '?', '#']) || text.bytes().any(|b| b.is_ascii_whitespace())
        {
            let what = format!("{text:?} is not plain text");
            return Err(Malformed::new(what, "everything below a folder is meant anyway"));
        }
        let Some(path) = request_target::normal_path(text).filter(|path| !path.contains("//"))
        else {
            let hint = if text.starts_with('/') { form } else { "start it with `/`" };
            return Err(Malformed::new(format!("{text:?} is not a path of one reading"), hint));
        };
        let path = if path.contains('%') {
            Cow::Owned(request_target::permissive_path(&path))
        } else {
            path
        };
        let path = path.trim_end_matches('/');
        let depth = path.matches('/').count();
        if depth == 0 {
            let hint = "purge everything, or a tag that all routes carry";
            return Err(Malformed::new(format!("{text:?} is every path"), hint));
        }
        if depth > MAX_FOLDER_SEGMENTS {
            let what = format!("{text:?} has {depth} segments");
            let hint = "entries carry tags for the first 4 segments of their path: write at most 4";
            return Err(Malformed::new(what, hint));
        }
        Ok(Self(format!("{}/", fold(path)).into()))
    }

    /// The folder, with its final slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag that entries below it carry.
    #[must_use]
    pub fn tag(&self, host: &str) -> Tag {
        Tag::for_folder(host, &self.0)
    }

    /// Whether some path of a pattern may be in it. In doubt it may.
    #[must_use]
    pub fn may_hold(&self, pattern: &Pattern) -> bool {
        let pattern = fold(pattern.as_str());
        let mut segments = pattern.split('/').skip(1);
        for own in self.0.trim_end_matches('/').split('/').skip(1) {
            match segments.next() {
                Some(segment) if segment.starts_with("{*") => return true,
                // A capture, or text with captures in it.
                Some(segment) if segment.contains('{') => {}
                // An escape, or an extension that does not count.
                Some(segment) if segment.contains(['%', '.']) => {}
                Some(segment) if segment == own => {}
                Some(_) | None => return false,
            }
        }
        true
    }
}

/// Which folders the entries of a route carry as tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderTags {
    /// The first four of each path.
    pub every: bool,
    /// These, where the path is in one.
    pub named: Box<[Folder]>,
}

impl FolderTags {
    /// Whether no entry carries one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.every && self.named.is_empty()
    }

    /// Those that paths of this pattern may be in.
    #[must_use]
    pub fn of_pattern(&self, pattern: &Pattern) -> Self {
        let named = self.named.iter().filter(|folder| folder.may_hold(pattern)).cloned();
        Self { every: self.every, named: named.collect() }
    }

    /// Whether entries in this folder carry its tag.
    #[must_use]
    pub fn covers(&self, folder: &Folder) -> bool {
        self.every || self.named.contains(folder)
    }

    /// Adds the tags of an entry of this path.
    pub fn add(&self, host: &str, path: &str, tags: &mut Vec<Tag>) {
        if self.is_empty() {
            return;
        }
        let path = if path.contains('%') {
            Cow::Owned(request_target::permissive_path(path))
        } else {
            Cow::Borrowed(path)
        };
        let mut add = |folder: &str| {
            let is_named = |named: &Folder| named.0.strip_suffix('/') == Some(folder);
            if !folder.is_empty() && (self.every || self.named.iter().any(is_named)) {
                tags.push(Tag::for_folder(host, &format!("{folder}/")));
            }
        };
        let whole = fold(path.trim_end_matches('/'));
        let bare = fold(request_target::bare_path(&path));
        let ends = bare.match_indices('/').map(|(at, _)| at).skip(1).chain([bare.len()]);
        ends.take(MAX_FOLDER_SEGMENTS).filter_map(|end| bare.get(..end)).for_each(&mut add);
        // A folder may have the name of the page itself: `/index.php/`.
        if whole != bare && whole.matches('/').count() <= MAX_FOLDER_SEGMENTS {
            add(&whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(text: &str) -> Folder {
        Folder::parse(text).expect("a folder")
    }

    fn tags(folders: &FolderTags, path: &str) -> Vec<String> {
        let mut tags = Vec::new();
        folders.add("app", path, &mut tags);
        tags.iter().map(Tag::to_string).collect()
    }

    #[test]
    fn a_folder_is_one_path_of_at_most_four_segments() {
        for (text, read) in [
            ("/a/", "/a/"),
            ("/a", "/a/"),
            ("/API/V1/Reports/x/", "/api/v1/reports/x/"),
            ("/a%20b/", "/a b/"),
            ("/%61/", "/a/"),
        ] {
            assert_eq!(folder(text).as_str(), read, "{text}");
        }
        for bad in ["", "/", "a/", "/a//b/", "/a/*", "/a/{id}/", "/a?x", "/a/../b/", "/a%2fb/"] {
            assert!(Folder::parse(bad).is_err(), "{bad}");
        }
        let deep = Folder::parse("/1/2/3/4/5/").expect_err("too deep");
        assert!(deep.what.contains("5 segments") && deep.hint.contains("at most 4"), "{deep:?}");
    }

    #[test]
    fn an_entry_carries_the_folders_of_its_path() {
        let every = FolderTags { every: true, ..FolderTags::default() };
        for (path, expected) in [
            ("/", &[][..]),
            ("/a", &["/a/"]),
            ("/A/b.json", &["/a/", "/a/b/", "/a/b.json/"]),
            ("/1/2/3/4.x", &["/1/", "/1/2/", "/1/2/3/", "/1/2/3/4/", "/1/2/3/4.x/"]),
            ("/1/2/3/4/5.x", &["/1/", "/1/2/", "/1/2/3/", "/1/2/3/4/"]),
            ("/a/b/", &["/a/", "/a/b/"]),
            ("/1/2/3/4/5/6", &["/1/", "/1/2/", "/1/2/3/", "/1/2/3/4/"]),
            ("/%61/x", &["/a/", "/a/x/"]),
        ] {
            let expected: Vec<String> =
                expected.iter().map(|folder| format!("under app{folder}")).collect();
            assert_eq!(tags(&every, path), expected, "{path}");
        }
        let named = FolderTags { every: false, named: [folder("/a/b/"), folder("/c/")].into() };
        assert_eq!(tags(&named, "/a/b/c/d"), ["under app/a/b/"]);
        assert_eq!(tags(&named, "/a/b"), ["under app/a/b/"]);
        assert_eq!(tags(&named, "/a/bc/d"), [""; 0]);
        assert_eq!(tags(&FolderTags::default(), "/a/b"), [""; 0]);
    }

    #[test]
    fn what_a_purge_names_is_what_entries_carry() {
        let every = FolderTags { every: true, ..FolderTags::default() };
        for (text, path) in
            [("/a/", "/a/b"), ("/A/b", "/a/B/c"), ("/a%20b/", "/a%20b/c"), ("/ä/", "/%C3%A4/x")]
        {
            let named = FolderTags { every: false, named: [folder(text)].into() };
            let tag = folder(text).tag("app").to_string();
            assert!(tags(&every, path).contains(&tag), "{text} {path}");
            assert_eq!(tags(&named, path), [tag], "{text} {path}");
        }
    }

    #[test]
    fn routes_carry_only_folders_that_their_paths_may_be_in() {
        let may = |folder: &str, pattern: &str| {
            self::folder(folder).may_hold(&Pattern::parse(pattern).expect("a pattern"))
        };
        for (folder, pattern) in [
            ("/a/", "/a/{id}"),
            ("/a/b/", "/a/{id}"),
            ("/a/b/", "/a/{*rest}"),
            ("/a/b/", "/{*rest}"),
            ("/a/b/", "/A/{x}/c"),
            ("/a/", "/a"),
            ("/a/", "/a.json"),
        ] {
            assert!(may(folder, pattern), "{folder} {pattern}");
        }
        for (folder, pattern) in [("/a/", "/b/{id}"), ("/a/b/", "/a"), ("/a/b/c/", "/a/{id}")] {
            assert!(!may(folder, pattern), "{folder} {pattern}");
        }
    }
}
