//! Decodes tables of names and texts, such as `fields` of a source.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::DeValue;

use super::{FromToml, Located, TomlReader, TomlString};

/// A table whose keys are names, and whose values are texts. Values that are none have been
/// reported and are left out.
pub struct NamedTexts(pub Vec<(Located<String>, Located<TomlString>)>);

impl FromToml for NamedTexts {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        let table = reader.table(value, "{ id = \"/data/object/id\" }")?;
        let read = |(name, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
            let name = Located { span: name.span(), value: name.get_ref().clone().into_owned() };
            let text = TomlString::read(value, reader)?;
            Some((name, Located { span: value.span(), value: text }))
        };
        Some(Self(table.iter().filter_map(read).collect()))
    }
}
