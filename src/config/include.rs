//! The files that `include` of `proxy.toml` names: which ones they are, and their texts.
//!
//! Invariants:
//! 1. *Only the operator's own file has files read.* A text that comes by itself, as that of `POST
//!    /check`, brings the files that it names, or is rejected.
//! 2. *What is read is bounded*: [`MAX_FILES`] files, [`MAX_CONFIG_BYTES`] bytes with the main one,
//!    [`MAX_NAMES`] names looked at. What goes beyond is an error, and never a part of the rules.
//! 3. *Only regular files are read*; what was opened is looked at, not its name.
//! 4. *The order is that of the patterns, then of the names.* A file counts once.
//! 5. *All or nothing*: a file that cannot be read makes the whole invalid.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::diagnostics::diagnostic::SourceSpan;
use super::diagnostics::recover;
use super::env;
use crate::input_file::{self, MAX_CONFIG_BYTES};
use crate::policy::glob::Glob;
use crate::units::show_size;

/// How many files may be included.
pub const MAX_FILES: usize = 64;
/// How many names of files are looked at for all patterns together.
const MAX_NAMES: usize = 4096;

/// An included file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncludedFile {
    /// What it is called in diagnostics: its path, from where that of the main file begins.
    pub name: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
}

/// Where the texts of included files come from.
#[derive(Clone, Copy, Debug)]
pub enum IncludeSource<'a> {
    /// They are read from the folder of this file.
    FolderOf(&'a Path),
    /// They came with the text.
    Given(&'a [IncludedFile]),
    /// There are none: a text that names some is invalid.
    Nowhere,
}

/// What came of `include`.
#[derive(Debug, Default)]
pub struct IncludedFiles {
    /// The files, in their order.
    pub files: Vec<IncludedFile>,
    /// What went wrong.
    pub faults: Vec<IncludeFault>,
    /// The patterns that match nothing.
    pub unmatched: Vec<SourceSpan>,
}

/// An element of `include`.
#[derive(Clone, Debug)]
pub struct IncludePattern {
    at: SourceSpan,
    /// The pattern, with its variables expanded.
    text: String,
    /// The same as written.
    written: String,
}

/// Why something cannot be included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncludeFault {
    /// The pattern.
    pub at: SourceSpan,
    /// The message.
    pub what: String,
    /// How to fix it.
    pub hint: &'static str,
}

/// The texts of a file and of those that it includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTexts {
    /// That of the file itself.
    pub main: Arc<str>,
    /// The files that it includes.
    pub included: Arc<[IncludedFile]>,
}

impl FileTexts {
    /// All texts, that of the file itself first.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.main).chain(self.included.iter().map(|file| &*file.text))
    }

    /// The tables of valid files: those of the file itself, with the rules and fields of those that
    /// it includes. Which file has a rule does not count.
    #[must_use]
    pub fn joined(&self) -> Table {
        let mut tree: Table = self.main.parse().unwrap_or_default();
        for file in &*self.included {
            let own: Table = file.text.parse().unwrap_or_default();
            for (key, value) in own {
                match (tree.get_mut(&key), value) {
                    (Some(Value::Array(all)), Value::Array(own)) => all.extend(own),
                    (Some(Value::Table(all)), Value::Table(own)) => all.extend(own),
                    (_, value) => {
                        tree.insert(key, value);
                    }
                }
            }
        }
        tree.remove("include");
        tree
    }

    /// The same files with these texts, in the order of [`FileTexts::all`].
    #[must_use]
    pub fn with(&self, texts: Vec<String>) -> Self {
        let mut texts = texts.into_iter();
        let main = texts.next().map_or_else(|| Arc::clone(&self.main), Arc::from);
        let known = self.included.iter();
        let included = known
            .zip(texts)
            .map(|(file, text)| IncludedFile { name: Arc::clone(&file.name), text: text.into() });
        Self { main, included: included.collect() }
    }
}

impl From<&str> for FileTexts {
    /// A file that includes none.
    fn from(text: &str) -> Self {
        Self { main: text.into(), included: Arc::default() }
    }
}

/// A file and those that it includes, as they are on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    texts: FileTexts,
    faults: Vec<IncludeFault>,
}

impl FileState {
    /// The state that valid rules were made of.
    #[must_use]
    pub const fn valid(texts: FileTexts) -> Self {
        Self { texts, faults: Vec::new() }
    }

    /// Reads a file and those that it includes.
    ///
    /// # Errors
    /// When the file itself cannot be read.
    pub fn read(path: &Path) -> Result<Self, String> {
        Self::read_again(path, &mut KnownPatterns::default())
    }

    /// The same, without a look for `include` in a text that had one before.
    ///
    /// # Errors
    /// When the file itself cannot be read.
    pub fn read_again(path: &Path, known: &mut KnownPatterns) -> Result<Self, String> {
        let text = input_file::read_text(path, MAX_CONFIG_BYTES).map_err(|why| why.to_string())?;
        let found = read(path, known.of(&text), text.len() as u64);
        let texts = FileTexts { main: text.into(), included: found.files.into() };
        Ok(Self { texts, faults: found.faults })
    }
}

/// The patterns of the text that was read last: a file that is watched is read each second, and
/// hardly ever changes.
#[derive(Debug, Default)]
pub struct KnownPatterns {
    text: String,
    patterns: Vec<IncludePattern>,
}

impl KnownPatterns {
    fn of(&mut self, text: &str) -> &[IncludePattern] {
        if self.text != text {
            let recovered = recover::recover(text, 0);
            let (table, _) = DeTable::parse_recoverable(&recovered.text);
            self.patterns = patterns(table.get_ref(), &|name| std::env::var(name).ok());
            text.clone_into(&mut self.text);
        }
        &self.patterns
    }
}

/// The patterns of `include`, with their variables expanded. What is no text is left out, and is
/// reported where the file is decoded.
pub fn patterns(table: &DeTable<'_>, env: &dyn Fn(&str) -> Option<String>) -> Vec<IncludePattern> {
    let list = table.get("include").and_then(|value| value.get_ref().as_array());
    let expanded = list.into_iter().flat_map(|list| list.iter()).filter_map(|value| {
        let DeValue::String(written) = value.get_ref() else { return None };
        let text = env::expand(written, env).ok()?.value;
        Some(IncludePattern { at: value.span(), text, written: written.clone().into_owned() })
    });
    expanded.collect()
}

/// Reads the files that these patterns name, from the folder of the main file, which has this many
/// bytes itself.
#[must_use]
pub fn read(main: &Path, patterns: &[IncludePattern], bytes: u64) -> IncludedFiles {
    let mut reader = IncludeReader {
        main: fs::metadata(main).ok().map(|main| (main.dev(), main.ino())),
        left: MAX_CONFIG_BYTES.saturating_sub(bytes),
        names: 0,
        known: HashSet::new(),
        found: IncludedFiles::default(),
    };
    let folder = main.parent().unwrap_or_else(|| Path::new(""));
    for IncludePattern { at, text, written } in patterns {
        if let Err((what, hint)) = reader.add(folder, at, text) {
            // SECURITY: a variable that was meant for something else may hold a secret.
            let what = if text == written { what } else { what.replace(text.as_str(), written) };
            reader.found.faults.push(IncludeFault { at: at.clone(), what, hint });
        }
    }
    reader.found
}

type Fault = (String, &'static str);

struct IncludeReader {
    /// The device and the inode of the main file.
    main: Option<(u64, u64)>,
    /// How many bytes there is room for.
    left: u64,
    /// How many names have been looked at.
    names: usize,
    /// The paths that have been read.
    known: HashSet<PathBuf>,
    found: IncludedFiles,
}

impl IncludeReader {
    /// Reads the files of a pattern.
    fn add(&mut self, folder: &Path, at: &SourceSpan, pattern: &str) -> Result<(), Fault> {
        if pattern.is_empty() {
            return Err(("this names no file".to_owned(), "remove it"));
        }
        let paths = self.expand(folder, Path::new(pattern))?;
        if paths.is_empty() {
            self.found.unmatched.push(at.clone());
        }
        for path in paths {
            if self.known.insert(path.clone()) {
                let text = self.text(&path)?;
                let name = path.to_str().filter(|name| !name.contains(char::is_control));
                let name = name.ok_or_else(|| unnamed(&path))?.into();
                self.found.files.push(IncludedFile { name, text: text.into() });
            }
        }
        Ok(())
    }

    /// The paths of a pattern: of one without `*` its own, whether or not there is such a file.
    fn expand(&mut self, folder: &Path, pattern: &Path) -> Result<Vec<PathBuf>, Fault> {
        let (mut paths, mut is_glob) = (vec![folder.to_path_buf()], false);
        for component in pattern.components() {
            let text = component.as_os_str().to_string_lossy();
            match component {
                Component::CurDir => {}
                Component::Normal(_) if text.contains("**") => {
                    let hint = "name each folder, as in include = [\"a/*.toml\", \"b/*.toml\"]";
                    return Err(("`**` is not known here".to_owned(), hint));
                }
                Component::Normal(_) if text.contains('*') => {
                    is_glob = true;
                    paths = self.matching(&paths, &text)?;
                }
                // A path of its own begins with the root, which replaces the folder.
                _ => {
                    for path in &mut paths {
                        path.push(component);
                    }
                    if is_glob {
                        paths.retain(|path| fs::symlink_metadata(path).is_ok());
                    }
                }
            }
        }
        Ok(paths)
    }

    /// What is in these folders and matches, in the order of the names. A name that begins with a
    /// dot is matched only by a pattern that does: editors keep their copies under such names.
    fn matching(&mut self, folders: &[PathBuf], pattern: &str) -> Result<Vec<PathBuf>, Fault> {
        let glob = Glob::new(pattern);
        let mut found = Vec::new();
        for folder in folders {
            let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let unlisted = |why: io::Error| {
                let what = format!("the folder {} cannot be read: {why}", shown.display());
                (what, "make it readable for the user who runs the sidecar")
            };
            let entries = match fs::read_dir(shown) {
                Ok(entries) => entries,
                // What is not there has no files; what is no folder has none either.
                Err(why) if matches!(why.kind(), io::ErrorKind::NotFound) => continue,
                Err(why) if matches!(why.kind(), io::ErrorKind::NotADirectory) => continue,
                Err(why) => return Err(unlisted(why)),
            };
            for entry in entries {
                self.names += 1;
                if self.names > MAX_NAMES {
                    let what = format!("there are more than {MAX_NAMES} names to look at");
                    return Err((what, "keep the files in a folder of their own"));
                }
                let name = entry.map_err(unlisted)?.file_name();
                let bytes = name.as_encoded_bytes();
                let is_hidden = bytes.starts_with(b".") && !pattern.starts_with('.');
                if !is_hidden && glob.matches(bytes) {
                    found.push(folder.join(name));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The text of a file.
    fn text(&mut self, path: &Path) -> Result<String, Fault> {
        if self.found.files.len() == MAX_FILES {
            let what = format!("there are more than {MAX_FILES} files to include");
            return Err((what, "join some of them, or name fewer"));
        }
        let shown = path.display();
        let main = fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        if main.is_some() && main == self.main {
            let hint = "keep the included files in a folder of their own, or name them";
            return Err((format!("{shown} is the file itself"), hint));
        }
        let bytes = input_file::read(path, self.left).map_err(|why| match why.kind() {
            io::ErrorKind::FileTooLarge => {
                let most = show_size(MAX_CONFIG_BYTES);
                let what = format!("with {shown} all files together are larger than {most}");
                (what, "remove what they do not need; routes can share a pattern")
            }
            io::ErrorKind::NotFound => {
                let hint = "write the path from the folder of this file on; only `*` stands for \
                            other text";
                (format!("there is no file {shown}"), hint)
            }
            io::ErrorKind::InvalidInput => {
                (format!("{shown} is not a regular file"), "name files, as in \"conf.d/*.toml\"")
            }
            _ => {
                let hint = "make it readable for the user who runs the sidecar";
                (format!("{shown} cannot be read: {why}"), hint)
            }
        })?;
        self.left -= bytes.len() as u64;
        String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = memchr::memchr_iter(b'\n', valid).count() + 1;
            let hint = "TOML files must be UTF-8; save it in that encoding";
            (format!("line {line} of {shown} is not UTF-8"), hint)
        })
    }
}

fn unnamed(path: &Path) -> Fault {
    let name = path.to_string_lossy();
    let what = format!("the name of \"{}\" cannot be shown", name.escape_debug());
    (what, "give the file a name in UTF-8 without control characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A watched file was parsed each second: of what an idle sidecar with 1,000 routes took, this
    /// was nearly half.
    #[test]
    fn r1495_a_text_that_stays_the_same_is_parsed_once() {
        let mut known = KnownPatterns::default();
        assert!(known.of("").is_empty());
        let (one, two) = ("include = [\"a.toml\", \"b/*.toml\"]\n", "include = [\"c.toml\"]\n");
        let first = known.of(one);
        let texts: Vec<_> = first.iter().map(|pattern| pattern.text.clone()).collect();
        assert_eq!(texts, ["a.toml", "b/*.toml"]);
        // What is made anew is made while the former list is there.
        let place = first.as_ptr();
        assert_eq!(known.of(one).as_ptr(), place);
        assert_eq!(known.of(two).len(), 1);
        assert_eq!(known.of(one).len(), 2);
        assert!(known.of("").is_empty());
    }
}
