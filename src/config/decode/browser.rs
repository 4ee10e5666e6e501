//! Decodes `browser` of a route: `"no-store"`, or a duration.

use toml::Spanned;
use toml::de::DeValue;

use super::{FromToml, Period, TomlReader};

/// The form of `browser`: the word, or a duration.
pub enum BrowserForm {
    /// Clients store nothing.
    NoStore,
    /// Clients may use a response for so long.
    For(Period),
}

impl FromToml for BrowserForm {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        match value.get_ref().as_str() {
            Some("no-store") => Some(Self::NoStore),
            _ => Period::read(value, reader).map(Self::For),
        }
    }
}
