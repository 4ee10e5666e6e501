//! Decodes `strip_set_cookie` of a route: a boolean or a list.

use toml::Spanned;
use toml::de::DeValue;

use super::{FromToml, TomlList, TomlReader, TomlString};

/// The form of `strip_set_cookie`: a boolean or a list.
pub enum StripForm {
    /// All cookies, or none.
    All(bool),
    /// Only these cookies.
    Named(TomlList<TomlString>),
}

impl FromToml for StripForm {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(_) => bool::read(value, reader).map(Self::All),
            DeValue::Array(_) => TomlList::read(value, reader).map(Self::Named),
            other => {
                let hint = match other.as_str() {
                    Some("true" | "false") => "remove the quotes",
                    _ => "put the names of cookies in brackets: [\"_ga\", \"pref_*\"]",
                };
                let needed = "true, false, or a list of cookies";
                reader.wrong_type(value, needed, Some(hint.to_owned()));
                None
            }
        }
    }
}
