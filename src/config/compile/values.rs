//! Compiles single values: addresses, sizes, durations and counts with their ranges, secrets,
//! files, lists of headers. The callers know which key has which range.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use http::HeaderName;

use crate::config::compile::socket_path;
use crate::config::context::CompileContext;
use crate::config::decode::{Count, Located, Period, Setting, Size, TomlList, TomlString};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::input_file;
use crate::secret::Secret;
use crate::units::{show_duration, show_size};

/// The shortest token or secret: shorter ones can be guessed.
const SHORTEST_SECRET: usize = 16;

/// Headers that belong to a connection or to the sidecar itself (RFC 9110 7.6.1), so no rule may
/// name them.
const RESERVED: [&str; 14] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    "content-length",
    "via",
    "host",
];

/// Why no file can be written under this name, as far as can be seen.
pub fn unwritable_name(path: &Path) -> Option<&'static str> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if path.is_symlink() {
        Some("is a link, and links are not followed")
    } else if path.is_dir() || path.file_name().is_none() {
        Some("is a folder")
    } else if !parent.is_none_or(Path::is_dir) {
        Some("is in a folder that does not exist")
    } else {
        None
    }
}

impl CompileContext {
    /// A duration in its range. A value out of range is an error and is never clamped.
    pub fn period(&mut self, slot: &Setting<Period>, least: Duration, most: Duration) -> Duration {
        let value = slot.get().map_or(Duration::ZERO, |period| period.0);
        if let Some(given) = slot.given() {
            self.in_range(&given.span, value, least, most, show_duration);
        }
        value
    }

    pub fn size(&mut self, slot: &Setting<Size>, least: u64, most: u64) -> u64 {
        let value = slot.get().map_or(0, |size| size.0);
        if let Some(given) = slot.given() {
            self.in_range(&given.span, value, least, most, show_size);
        }
        value
    }

    /// A number in its range.
    pub fn count(&mut self, slot: &Setting<Count>, least: u64, most: u64) -> usize {
        let value = slot.get().map_or(0, |count| count.0);
        if let Some(given) = slot.given() {
            self.in_range(&given.span, value, least, most, |number| number.to_string());
        }
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    /// Checks that a value is in its range.
    pub fn in_range<T: PartialOrd + Copy>(
        &mut self,
        at: &SourceSpan,
        value: T,
        least: T,
        most: T,
        show: impl Fn(T) -> String,
    ) -> bool {
        let (word, bound) = match value {
            value if value < least => ("small", least),
            value if value > most => ("large", most),
            _ => return true,
        };
        let builder = DiagnosticBuilder::error(at.clone(), format!("this is too {word}"));
        self.report.push(
            builder
                .allowed(format!("{} to {}", show(least), show(most)))
                .hint(format!("the nearest allowed value is {}", show(bound))),
        );
        false
    }

    /// An address and port.
    pub fn address(&mut self, slot: &Setting<TomlString>) -> Option<SocketAddr> {
        let text = slot.get()?;
        if let Ok(address) = text.as_str().parse() {
            return Some(address);
        }
        let given = slot.given()?;
        let (value, shown) = (text.as_str(), text.shown());
        let hint = if let Some(port) = value.strip_prefix(':').or_else(|| value.strip_prefix("*:"))
        {
            format!(
                "write \"0.0.0.0:{port}\" for all interfaces, \"127.0.0.1:{port}\" for this \
                 machine only"
            )
        } else if let Some(port) = value.strip_prefix("localhost:") {
            format!("names are not resolved here; write \"127.0.0.1:{port}\"")
        } else if value.parse::<u16>().is_ok() {
            format!("write \"127.0.0.1:{value}\"")
        } else if value.parse::<std::net::Ipv4Addr>().is_ok() {
            format!("add a port: \"{value}:8080\"")
        } else if socket_path::is_socket(value) {
            "this listener has a TCP port; only `address` of [listen] may be a socket".into()
        } else if value.contains("://") {
            "remove the scheme".into()
        } else if value.starts_with('/') {
            format!("a socket is written as \"unix:{shown}\"")
        } else {
            "write it as \"127.0.0.1:8080\"".into()
        };
        self.report.malformed(
            given,
            "an address",
            format!("`{shown}` is not an address with a port"),
            Some("IP:PORT or [IPv6]:PORT"),
            &hint,
        );
        None
    }

    /// A text that must not be empty.
    pub fn text(&mut self, slot: &Setting<TomlString>) -> Option<String> {
        let given = slot.given()?;
        if given.value.as_str().is_empty() {
            self.report.push(
                DiagnosticBuilder::error(given.span.clone(), "this is empty")
                    .hint("give it a value, or remove the key"),
            );
            return None;
        }
        Some(given.value.as_str().to_owned())
    }

    /// A regular file that must be readable, and hold at most `max` bytes: its path, and its bytes
    /// unless it was reported.
    pub fn file(
        &mut self,
        slot: &Setting<TomlString>,
        max: u64,
    ) -> Option<(PathBuf, Option<Vec<u8>>)> {
        let name = self.text(slot)?;
        let path = self.folder.join(name);
        let read = input_file::read(&path, max);
        if let (Err(error), Some(given)) = (&read, slot.given()) {
            let what = format!(
                "`{}` cannot be read: {error}",
                self.folder.join(given.value.shown()).display()
            );
            let hint = match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "let the user who runs the sidecar read it, and enter the folders above it: \
                     chown or chmod it, or copy it"
                }
                _ => "paths are relative to the folder of this file",
            };
            self.report.malformed(
                given,
                "the name of a file that can be read",
                what,
                Some(&format!("a regular file of at most {}, or a link to one", show_size(max))),
                hint,
            );
        }
        Some((path, read.ok()))
    }

    /// A file to write. It need not exist yet, but its folder must.
    pub fn new_file(&mut self, slot: &Setting<TomlString>) -> Option<PathBuf> {
        let path = self.path(slot)?;
        let Some(what) = unwritable_name(&path) else { return Some(path) };
        if let Some(given) = slot.given() {
            let what = format!("`{}` {what}", self.folder.join(given.value.shown()).display());
            let hint = "create the folder, and name a file in it; paths are relative to the \
                        folder of this file";
            self.report.malformed(
                given,
                "the name of a file that can be written",
                what,
                None,
                hint,
            );
        }
        None
    }

    /// A path, relative to the folder of the file.
    pub fn path(&mut self, slot: &Setting<TomlString>) -> Option<PathBuf> {
        let name = self.text(slot)?;
        Some(self.folder.join(name))
    }

    /// A secret that is long enough. SECURITY: messages never show any of its value.
    pub fn secret(&mut self, at: &SourceSpan, value: &str) -> Option<Secret> {
        let builder = if value.chars().count() < SHORTEST_SECRET {
            DiagnosticBuilder::error(
                at.clone(),
                format!("this secret is shorter than {SHORTEST_SECRET} characters"),
            )
            .allowed(format!("at least {SHORTEST_SECRET} characters"))
            .hint("make one with `openssl rand -hex 32`")
        } else if !value.bytes().all(|b| b.is_ascii_graphic()) {
            DiagnosticBuilder::error(
                at.clone(),
                "this secret has characters that a header cannot carry",
            )
            .allowed("visible ASCII characters")
            .hint("make one with `openssl rand -hex 32`")
        } else {
            return Some(Secret::new(value));
        };
        self.report.push(builder);
        None
    }

    /// The name of a header that rules may use.
    pub fn header(&mut self, text: &Located<TomlString>) -> Option<HeaderName> {
        let shown = text.value.shown();
        // A `*` is a token of HTTP, but no header has one in its name.
        if text.value.as_str().contains('*') {
            let what = format!("`{shown}` is a pattern, and headers are named one by one");
            let hint = "write each name, as in [\"cf-ray\", \"cf-ipcountry\"]; in a route, \
                        unknown_headers = \"drop\" withholds all that no rule names";
            self.report.malformed(
                text,
                "a header name",
                what,
                Some("letters, digits and `-`"),
                hint,
            );
            return None;
        }
        let Ok(name) = HeaderName::from_str(text.value.as_str()) else {
            let what = format!("`{shown}` is not a valid header name");
            self.report.malformed(
                text,
                "a header name",
                what,
                Some("letters, digits and `-`"),
                "write it as \"x-tenant-id\"",
            );
            return None;
        };
        if RESERVED.contains(&name.as_str()) {
            let builder = DiagnosticBuilder::error(
                text.span.clone(),
                format!("`{shown}` belongs to the connection, not to the request"),
            );
            self.report.push(builder.hint("remove it; the sidecar handles it"));
            return None;
        }
        Some(name)
    }

    /// A list of names. None may be empty or listed twice.
    pub fn names<T: PartialEq>(
        &mut self,
        list: &[Located<TomlString>],
        mut read: impl FnMut(&mut Self, &Located<TomlString>) -> Option<T>,
    ) -> Vec<T> {
        let (mut seen, mut names): (HashSet<&str>, Vec<T>) = (HashSet::new(), Vec::new());
        for text in list {
            if text.value.as_str().is_empty() {
                self.report.push(
                    DiagnosticBuilder::error(text.span.clone(), "this name is empty")
                        .hint("remove it"),
                );
            } else if !seen.insert(text.value.as_str()) {
                self.twice(text);
            } else if let Some(name) = read(self, text) {
                if names.contains(&name) {
                    self.twice(text);
                } else {
                    names.push(name);
                }
            }
        }
        names
    }

    fn twice(&mut self, text: &Located<TomlString>) {
        self.report.push(
            DiagnosticBuilder::error(
                text.span.clone(),
                format!("`{}` is listed twice", text.value.shown()),
            )
            .hint("remove one of the two"),
        );
    }

    /// The headers of a list.
    pub fn headers(&mut self, slot: &Setting<TomlList<TomlString>>) -> Box<[HeaderName]> {
        slot.get().map(|list| self.names(&list.0, Self::header)).unwrap_or_default().into()
    }
}
