//! `compress` of `[redis]`: a word, or a table.

use toml::Spanned;
use toml::de::DeValue;

use crate::config::decode::{Count, FromToml, Size, TomlReader, table};
use crate::config::keywords::CompressWord;

table! {
    /// How bodies are compressed before they go to Redis.
    CompressSection("`compress`", "{ method = \"zstd\", level = 3 }") {
        /// The method, or `off`.
        method: CompressWord = "zstd",
        /// How thoroughly, 1 to 19. Above 9 it takes many times as long for little.
        level: Count = 3,
        /// The shortest body that is compressed.
        min_size: Size = "1KiB",
    }
}

/// The form of `compress`: the method alone, or with how and what.
pub enum CompressForm {
    /// The method, with the defaults of the rest.
    Method(CompressWord),
    /// With the rest.
    Table(Box<CompressSection>),
}

impl FromToml for CompressForm {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(_) => {
                CompressSection::read(value, reader).map(|section| Self::Table(Box::new(section)))
            }
            DeValue::String(_) => CompressWord::read(value, reader).map(Self::Method),
            _ => {
                let needed = "\"zstd\", \"off\", or a table such as \
                              { method = \"zstd\", level = 3, min_size = \"1KiB\" }";
                reader.wrong_type(value, needed, None);
                None
            }
        }
    }
}
