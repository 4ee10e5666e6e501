//! Decodes tables of names and their values, such as the conditions of `match`.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::DeValue;

use super::{FromToml, Located, TomlReader, TomlString};

/// A table whose keys are names in requests, and whose values are text.
pub struct ValueTable(pub Vec<(Located<String>, Located<TomlString>)>);

impl FromToml for ValueTable {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        let table = reader.table(value, "names and their values")?;
        let mut read = |(name, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
            if value.get_ref().is_table() {
                let hint = format!("put the name in quotes: \"{}.…\"", name.get_ref());
                reader.wrong_type(value, "a string", Some(hint));
                return None;
            }
            let text = TomlString::read(value, reader)?;
            let name = Located { span: name.span(), value: name.get_ref().clone().into_owned() };
            Some((name, Located { span: value.span(), value: text }))
        };
        let read: Vec<_> = table.iter().map(&mut read).collect();
        read.into_iter().collect::<Option<_>>().map(Self)
    }
}
