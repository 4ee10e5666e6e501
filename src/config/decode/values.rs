//! Decodes values that are not strings: durations, sizes, numbers, booleans, lists and named
//! tables.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::{FromToml, Located, Setting, TomlReader, TomlString, top_hint};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::units::{self, UnitError};

/// A duration such as `"5m"`.
#[derive(Clone, Copy)]
pub struct Period(pub Duration);

/// A size such as `"64MiB"`.
#[derive(Clone, Copy)]
pub struct Size(pub u64);

impl FromToml for Period {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        with_unit(value, reader, "a duration", units::DURATION_FORM, "s", units::parse_duration)
            .map(Self)
    }
}

impl FromToml for Size {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        with_unit(value, reader, "a size", units::SIZE_FORM, "B", units::parse_size).map(Self)
    }
}

fn with_unit<T>(
    value: &Spanned<DeValue<'_>>,
    reader: &mut TomlReader<'_>,
    kind: &str,
    form: &str,
    base: &str,
    parse: fn(&str) -> Result<T, UnitError>,
) -> Option<T> {
    if let DeValue::Integer(number) = value.get_ref() {
        let builder = DiagnosticBuilder::error(
            value.span(),
            format!("{kind} must be a string with a unit, but this is a bare number"),
        );
        reader.report.push(builder.allowed(form).hint(format!("write \"{number}{base}\"")));
        return None;
    }
    let text = Located { span: value.span(), value: TomlString::read(value, reader)? };
    match parse(text.value.as_str()) {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            reader.report.malformed(&text, kind, error.what(), Some(error.allowed()), error.hint());
            None
        }
    }
}

/// An integer.
#[derive(Clone, Copy)]
pub struct Count(pub u64);

impl FromToml for Count {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Integer(number) => {
                let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
                if parsed.is_none() {
                    let builder = DiagnosticBuilder::error(
                        value.span(),
                        "this number is negative or too large",
                    );
                    reader.report.push(builder.allowed("a whole number from 0 to 2^63 - 1"));
                }
                parsed.map(Self)
            }
            DeValue::String(text) if text.parse::<u64>().is_ok() => {
                reader.wrong_type(value, "a whole number", Some("remove the quotes".to_owned()));
                None
            }
            _ => {
                reader.wrong_type(value, "a whole number", None);
                None
            }
        }
    }
}

/// A share from 0 to 1.
#[derive(Clone, Copy)]
pub struct Fraction(pub f64);

impl FromToml for Fraction {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            DeValue::String(text) if text.trim_end_matches('%').parse::<f64>().is_ok() => {
                reader.wrong_type(
                    value,
                    "a number from 0 to 1",
                    Some("remove the quotes; 1% is 0.01".to_owned()),
                );
                return None;
            }
            _ => {
                reader.wrong_type(value, "a number from 0 to 1", None);
                return None;
            }
        };
        let share = number.filter(|number| (0.0..=1.0).contains(number));
        if share.is_none() {
            let builder = DiagnosticBuilder::error(value.span(), "a share must be from 0 to 1");
            reader.report.push(builder.allowed("a number from 0 to 1").hint("1% is 0.01"));
        }
        share.map(Self)
    }
}

impl FromToml for bool {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        let DeValue::Boolean(flag) = value.get_ref() else {
            let quoted =
                value.get_ref().as_str().is_some_and(|text| matches!(text, "true" | "false"));
            reader.wrong_type(
                value,
                "true or false",
                quoted.then(|| "remove the quotes".to_owned()),
            );
            return None;
        };
        Some(*flag)
    }
}

/// A list. Invalid elements have been reported and are left out.
pub struct TomlList<T>(pub Vec<Located<T>>);

impl<T: FromToml> FromToml for TomlList<T> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        let Some(array) = value.get_ref().as_array() else {
            let hint = match value.get_ref() {
                DeValue::String(_) => "put it in brackets: [\"…\"]",
                DeValue::Table(_) => "write the header with double brackets: [[…]]",
                _ => "write […]",
            };
            reader.wrong_type(value, "a list", Some(hint.to_owned()));
            return None;
        };
        let read =
            |element| T::read(element, reader).map(|value| Located { span: element.span(), value });
        Some(Self(array.iter().filter_map(read).collect()))
    }
}

/// A table whose keys are chosen by the operator.
pub struct NamedTable<T>(pub Vec<(Located<String>, Setting<T>)>);

impl<T: FromToml> FromToml for NamedTable<T> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        let table = reader.table(value, "names and their values")?;
        let read = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name: &Spanned<std::borrow::Cow<'_, str>> = name;
            let hint = top_hint(name.get_ref()).filter(|_| !value.get_ref().is_table());
            let slot = if hint.is_some() {
                reader.wrong_type(value, "a table", hint);
                Setting::Bad
            } else {
                T::read(value, reader).map_or(Setting::Bad, |read| {
                    Setting::Given(Located { span: value.span(), value: read })
                })
            };
            (Located { span: name.span(), value: name.get_ref().clone().into_owned() }, slot)
        };
        Some(Self(table.iter().map(read).collect()))
    }
}
