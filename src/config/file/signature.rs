//! `signature` of a webhook: the name of a form, or a table that describes one.

use toml::Spanned;
use toml::de::DeValue;

use crate::config::decode::{FromToml, TomlReader, TomlString, table};
use crate::config::keywords::{EncodingWord, SignatureWord};

table! {
    /// How a webhook is signed: an HMAC with SHA-256.
    SignatureSection("signature", "{ header = \"x-signature\", prefix = \"sha256=\" }") {
        /// The header with the signature.
        header: TomlString,
        /// What stands before it in the header.
        prefix: TomlString = "",
        /// How it is written: `hex` or `base64`.
        encoding: EncodingWord = "hex",
        /// The header with the time of sending, in seconds since 1970.
        timestamp: TomlString,
        /// What is signed: a text with `{body}`, and with `{timestamp}`.
        signs: TomlString,
    }
}

/// The form of `signature`: a word or a table.
pub enum SignatureChoice {
    /// A form that has a name.
    Preset(SignatureWord),
    /// A form of its own.
    Table(Box<SignatureSection>),
}

impl FromToml for SignatureChoice {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(_) => {
                SignatureSection::read(value, reader).map(|table| Self::Table(Box::new(table)))
            }
            DeValue::String(_) => SignatureWord::read(value, reader).map(Self::Preset),
            _ => {
                let needed = "\"github\", \"shopify\", \"slack\", \"standard\", \"stripe\", or a \
                              table such as { header = \"x-signature\", prefix = \"sha256=\" }";
                reader.wrong_type(value, needed, None);
                None
            }
        }
    }
}
