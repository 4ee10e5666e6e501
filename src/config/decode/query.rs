//! Decodes `query` of a route: a word or a list.

use toml::Spanned;
use toml::de::DeValue;

use super::{FromToml, TomlList, TomlReader, TomlString, word};

/// The form of `query`: a word or a list.
pub enum QueryForm {
    /// All parameters.
    All,
    /// No parameters.
    None,
    /// Only these parameters.
    Only(TomlList<TomlString>),
}

impl FromToml for QueryForm {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        if value.get_ref().is_array() {
            return TomlList::read(value, reader).map(Self::Only);
        }
        if !value.get_ref().is_str() {
            reader.wrong_type(value, "\"all\", \"none\", or a list of parameters", None);
            return None;
        }
        match word(
            value,
            reader,
            "a rule for the query (a list of parameters goes in brackets)",
            &["all", "none"],
        )? {
            "all" => Some(Self::All),
            _ => Some(Self::None),
        }
    }
}
