//! Compiles single values: addresses, sizes, durations and counts with their ranges, secrets,
//! files, lists of headers. Which key has which range is not known here.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use http::HeaderName;

use super::CompileContext;
use crate::config::decode::{Count, Located, Period, Setting, Size, TomlList, TomlString};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::secret::Secret;
use crate::units::{show_duration, show_size};

/// The shortest token or secret: what is shorter can be guessed.
const SHORTEST_SECRET: usize = 16;

/// Headers that belong to a connection or to the sidecar itself (RFC 9110 7.6.1), so no rule may
/// speak of them.
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

impl CompileContext {
    /// A duration in its range. Out of it nothing is clamped: it is a problem, and the value is not
    /// used.
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

    /// Whether a value is in its range.
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
        let draft = DiagnosticBuilder::error(at.clone(), format!("this is too {word}"));
        self.report.push(
            draft
                .allowed(format!("{} to {}", show(least), show(most)))
                .hint(format!("the nearest is {}", show(bound))),
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
                "write \"0.0.0.0:{port}\" for all interfaces, \"127.0.0.1:{port}\" for this machine alone"
            )
        } else if let Some(port) = value.strip_prefix("localhost:") {
            format!("names are not looked up here; write \"127.0.0.1:{port}\"")
        } else if value.parse::<u16>().is_ok() {
            format!("write \"127.0.0.1:{value}\"")
        } else if value.parse::<std::net::Ipv4Addr>().is_ok() {
            format!("add a port: \"{value}:8080\"")
        } else if value.contains("://") {
            "leave the scheme out".into()
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

    /// The text of a key that must not be empty.
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

    /// A file that must be readable.
    pub fn file(&mut self, slot: &Setting<TomlString>) -> Option<PathBuf> {
        let name = self.text(slot)?;
        let path = self.folder.join(name);
        if let (Err(error), Some(given)) = (std::fs::File::open(&path), slot.given()) {
            let what = format!(
                "`{}` cannot be read: {error}",
                self.folder.join(given.value.shown()).display()
            );
            self.report.malformed(
                given,
                "the name of a file that can be read",
                what,
                None,
                "paths are relative to the folder of this file",
            );
        }
        Some(path)
    }

    /// A file that is written, and may not be there yet; its folder must.
    pub fn new_file(&mut self, slot: &Setting<TomlString>) -> Option<PathBuf> {
        let name = self.text(slot)?;
        let path = self.folder.join(name);
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let what = if path.is_dir() || path.file_name().is_none() {
            "is a folder"
        } else if !parent.is_none_or(Path::is_dir) {
            "is in no folder that exists"
        } else {
            return Some(path);
        };
        if let Some(given) = slot.given() {
            let what = format!("`{}` {what}", self.folder.join(given.value.shown()).display());
            let hint = "make the folder, and name a file in it; paths are relative to the folder of this file";
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

    /// A secret that is long enough. SECURITY: nothing of its value is told.
    pub fn secret(&mut self, at: &SourceSpan, value: &str) -> Option<Secret> {
        let draft = if value.chars().count() < SHORTEST_SECRET {
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
        self.report.push(draft);
        None
    }

    /// A header's name that rules may speak of.
    pub fn header(&mut self, text: &Located<TomlString>) -> Option<HeaderName> {
        let shown = text.value.shown();
        let Ok(name) = HeaderName::from_str(text.value.as_str()) else {
            let what = format!("`{shown}` is not the name of a header");
            self.report.malformed(
                text,
                "the name of a header",
                what,
                Some("letters, digits and `-`"),
                "write it as \"x-tenant-id\"",
            );
            return None;
        };
        if RESERVED.contains(&name.as_str()) {
            let draft = DiagnosticBuilder::error(
                text.span.clone(),
                format!("`{shown}` belongs to the connection, not to the request"),
            );
            self.report.push(draft.hint("remove it; the sidecar takes care of it"));
            return None;
        }
        Some(name)
    }

    /// A list of names, none of which comes twice or is empty.
    pub fn names<T: PartialEq>(
        &mut self,
        list: &[Located<TomlString>],
        mut read: impl FnMut(&mut Self, &Located<TomlString>) -> Option<T>,
    ) -> Vec<T> {
        let (mut seen, mut names): (HashSet<&str>, Vec<T>) = (HashSet::new(), Vec::new());
        for text in list {
            if text.value.as_str().is_empty() {
                self.report.push(
                    DiagnosticBuilder::error(text.span.clone(), "an empty name").hint("remove it"),
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
