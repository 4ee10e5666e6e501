//! Decodes a secret, or a list of them: the current one and those that are still accepted.

use toml::Spanned;
use toml::de::DeValue;

use super::{FromToml, Located, TomlList, TomlReader, TomlString};

/// A secret, or a list of them.
pub struct SecretsForm(pub Vec<Located<TomlString>>);

impl FromToml for SecretsForm {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(_) => TomlList::read(value, reader).map(|list| Self(list.0)),
            DeValue::String(_) => {
                let text = TomlString::read(value, reader)?;
                Some(Self(vec![Located { span: value.span(), value: text }]))
            }
            _ => {
                let hint = "put it in quotes, or several of them in brackets".to_owned();
                reader.wrong_type(value, "a string or a list of strings", Some(hint));
                None
            }
        }
    }
}
