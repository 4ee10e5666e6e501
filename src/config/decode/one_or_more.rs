//! Decodes what may be one text or a list of texts.

use toml::Spanned;
use toml::de::DeValue;

use super::{FromToml, Located, TomlList, TomlReader, TomlString};

/// Forms that are a text or a list of them, with what else is reported: what is expected, and how
/// to write it.
macro_rules! one_or_more {
    ($(#[doc = $doc:literal] $form:ident $(: $expected:literal, $hint:literal)?;)+) => {$(
        #[doc = $doc]
        pub struct $form(pub Vec<Located<TomlString>>);

        impl FromToml for $form {
            fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
                if matches!(value.get_ref(), DeValue::Array(_)) {
                    return TomlList::read(value, reader).map(|list| Self(list.0));
                }
                $(if !matches!(value.get_ref(), DeValue::String(_)) {
                    reader.wrong_type(value, $expected, Some($hint.to_owned()));
                    return None;
                })?
                let text = TomlString::read(value, reader)?;
                Some(Self(vec![Located { span: value.span(), value: text }]))
            }
        }
    )+};
}

one_or_more! {
    #[doc = "A name, or a list of them."]
    NamesForm: "a name or a list of names",
        "put the name in quotes, or several of them in brackets";
    #[doc = "A secret, or a list of them: the current one and those that are still accepted."]
    SecretsForm: "a string or a list of strings",
        "put it in quotes, or several of them in brackets";
    #[doc = "A value, or a list of them: one of its members counts."]
    TextsForm;
}
