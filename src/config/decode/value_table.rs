//! Decodes tables of names and their values, such as the conditions of `match`. A value may be a
//! list: one of its members counts.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::DeValue;

use super::{FromToml, Located, TextsForm, TomlReader};

/// A table whose keys are names in requests, and whose values are texts.
pub struct ValueTable(pub Vec<(Located<String>, Located<TextsForm>)>);

impl FromToml for ValueTable {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        let table = reader.table(value, "names and their values")?;
        let mut read = |(name, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
            if value.get_ref().is_table() {
                let hint = format!("put the name in quotes: \"{}.…\"", name.get_ref());
                reader.wrong_type(value, "a string", Some(hint));
                return None;
            }
            let texts = TextsForm::read(value, reader)?;
            let name = Located { span: name.span(), value: name.get_ref().clone().into_owned() };
            Some((name, Located { span: value.span(), value: texts }))
        };
        let read: Vec<_> = table.iter().map(&mut read).collect();
        read.into_iter().collect::<Option<_>>().map(Self)
    }
}
