//! Decodes strings: expands their variables, chooses between words, and reports texts of the wrong
//! form.

use std::fmt;

use toml::Spanned;
use toml::de::DeValue;

use super::{FromToml, Located, TomlReader, nearest};
use crate::config::diagnostics::DiagnosticCollector;
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::env;

/// A string with its variables expanded.
#[derive(Clone)]
pub struct TomlString {
    value: String,
    // The text as written in the file, if the value contains a variable's value.
    raw: Option<String>,
}

impl TomlString {
    /// The value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.value
    }

    /// The text for messages. SECURITY: values of variables may be secret, whatever the key, so the
    /// text is then shown as written.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.raw.as_deref().unwrap_or(&self.value)
    }

    /// Whether the value contains the value of a variable.
    #[must_use]
    pub const fn is_from_environment(&self) -> bool {
        self.raw.is_some()
    }
}

impl FromToml for TomlString {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        let DeValue::String(raw) = value.get_ref() else {
            let simple = matches!(
                value.get_ref(),
                DeValue::Integer(_)
                    | DeValue::Float(_)
                    | DeValue::Boolean(_)
                    | DeValue::Datetime(_)
            );
            let hint = simple.then(|| "put it in quotes".to_owned());
            reader.wrong_type(value, "a string", hint);
            return None;
        };
        match env::expand(raw, reader.env) {
            Ok(expanded) => {
                if expanded.from_environment {
                    reader.report.note_variable();
                }
                Some(Self {
                    raw: expanded.from_environment.then(|| raw.clone().into_owned()),
                    value: expanded.value,
                })
            }
            Err(errors) => {
                for error in errors {
                    let span = reader.report.source().within(&value.span(), &error.needle());
                    let builder = DiagnosticBuilder::error(span, error.message());
                    reader.report.push(builder.hint(error.hint()));
                }
                None
            }
        }
    }
}

impl DiagnosticCollector {
    /// Reports a text of the wrong form. SECURITY: the value of a variable is not repeated.
    pub fn malformed(
        &mut self,
        text: &Located<TomlString>,
        kind: &str,
        what: impl fmt::Display,
        allowed: Option<&str>,
        hint: &str,
    ) {
        let mut builder = if text.value.is_from_environment() {
            DiagnosticBuilder::error(
                text.span.clone(),
                format!("the value from the environment is not {kind}"),
            )
        } else {
            DiagnosticBuilder::error(text.span.clone(), what.to_string()).hint(hint)
        };
        if let Some(allowed) = allowed {
            builder = builder.allowed(allowed);
        }
        self.push(builder);
    }
}

/// Decodes one of several words.
pub fn word(
    value: &Spanned<DeValue<'_>>,
    reader: &mut TomlReader<'_>,
    kind: &str,
    words: &[&'static str],
) -> Option<&'static str> {
    let text = Located { span: value.span(), value: TomlString::read(value, reader)? };
    let found = words.iter().find(|word| **word == text.value.as_str()).copied();
    if found.is_none() {
        let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let allowed = quoted.join(" or ");
        let hint = nearest(text.value.as_str(), words).map_or_else(
            || "choose one of them".to_owned(),
            |near| format!("did you mean \"{near}\"?"),
        );
        let what = format!("`{}` is not {kind}", text.value.shown());
        reader.report.malformed(&text, kind, what, Some(&allowed), &hint);
    }
    found
}
