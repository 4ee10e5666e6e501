//! Decodes a name, or a list of them.

use toml::Spanned;
use toml::de::DeValue;

use super::{FromToml, Located, TomlList, TomlReader, TomlString};

/// A name, or a list of them.
pub struct NamesForm(pub Vec<Located<TomlString>>);

impl FromToml for NamesForm {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(_) => TomlList::read(value, reader).map(|list| Self(list.0)),
            DeValue::String(_) => {
                let text = TomlString::read(value, reader)?;
                Some(Self(vec![Located { span: value.span(), value: text }]))
            }
            _ => {
                let hint = "put the name in quotes, or several of them in brackets".to_owned();
                reader.wrong_type(value, "a name or a list of names", Some(hint));
                None
            }
        }
    }
}
