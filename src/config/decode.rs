//! Decodes the TOML tree into the types of the file, value by value, so that one wrong value never
//! hides another. It knows types, variables and unknown keys, not the meaning of settings.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::DiagnosticCollector;
use super::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use super::env;
use crate::units::{self, UnitError};

/// Keys that are planned but not supported yet.
const PLANNED_KEYS: [&str; 1] = ["jwt"];

/// A value and its position.
#[derive(Clone)]
pub struct Located<T> {
    /// Its position.
    pub span: SourceSpan,
    /// The value.
    pub value: T,
}

/// The result of decoding one key.
#[derive(Default)]
pub enum Setting<T> {
    /// The key is not in the file and has no default.
    #[default]
    Absent,
    /// The key is in the file but invalid, which has been reported.
    Bad,
    /// The key is in the file.
    Given(Located<T>),
    /// The key is not in the file: its default.
    Default(T),
}

impl<T> Setting<T> {
    /// The value or the default.
    pub const fn get(&self) -> Option<&T> {
        match self {
            Self::Given(located) => Some(&located.value),
            Self::Default(value) => Some(value),
            Self::Absent | Self::Bad => None,
        }
    }

    /// The value if it is in the file.
    pub const fn given(&self) -> Option<&Located<T>> {
        match self {
            Self::Given(located) => Some(located),
            _ => None,
        }
    }

    /// The value in the file. Reports a missing key, unless its value was invalid or it is probably
    /// there under a misspelt name.
    pub fn required(
        &self,
        key: &str,
        (table, unknown): (&SourceSpan, &UnknownKeys),
        example: &str,
        report: &mut DiagnosticCollector,
    ) -> Option<&Located<T>> {
        if matches!(self, Self::Absent)
            && !report.may_have_lost_keys(table)
            && !unknown.0.iter().any(|meant| meant == key)
        {
            report.push(
                DiagnosticBuilder::error(table.clone(), format!("`{key}` is missing"))
                    .hint(format!("add {example}")),
            );
        }
        self.given()
    }
}

/// For each unknown key of a table the known key that was probably meant, or an empty string.
#[derive(Debug, Default)]
pub struct UnknownKeys(pub Vec<String>);

/// A type that is decoded from one TOML value.
pub trait FromToml: Sized {
    /// Decodes the value, or reports why it is invalid.
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self>;
}

/// The state that decoding needs.
pub struct TomlReader<'a> {
    /// Collects the diagnostics.
    pub report: &'a mut DiagnosticCollector,
    /// Looks up environment variables.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

impl TomlReader<'_> {
    /// The value as a table.
    pub fn table<'t, 'i>(
        &mut self,
        value: &'t Spanned<DeValue<'i>>,
        example: &str,
    ) -> Option<&'t DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(value, "a table", Some(format!("write {example}")));
        }
        table
    }

    /// Decodes one key of a table. The default is TOML, as it would be written in the file.
    pub fn take<T: FromToml>(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        default: Option<&str>,
    ) -> Setting<T> {
        let given = table
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .filter(|(_, value)| !self.is_left_out(value));
        if let Some((_, value)) = given {
            let span = value.span();
            return T::read(value, self)
                .map_or(Setting::Bad, |value| Setting::Given(Located { span, value }));
        }
        let Some(default) = default else { return Setting::Absent };
        let value = DeValue::parse(default).ok().and_then(|value| T::read(&value, self));
        value.map_or(Setting::Bad, Setting::Default)
    }

    /// Whether a value is `"${NAME:-}"` and the variable is unset or empty: then the key counts as
    /// absent.
    fn is_left_out(&self, value: &Spanned<DeValue<'_>>) -> bool {
        let reference =
            value.get_ref().as_str().and_then(|text| text.strip_prefix("${")?.strip_suffix(":-}"));
        reference.is_some_and(|name| {
            !name.contains(['$', '}']) && (self.env)(name).is_none_or(|value| value.is_empty())
        })
    }

    /// Reports unknown keys.
    pub fn unknown_keys(
        &mut self,
        table: &DeTable<'_>,
        known: &[&str],
        place: &str,
    ) -> UnknownKeys {
        let mut unknown = UnknownKeys::default();
        for (name, _) in table {
            let key = name.get_ref().as_ref();
            if known.contains(&key) {
                continue;
            }
            let near = nearest(key, known);
            unknown.0.push(near.unwrap_or_default().to_owned());
            let (message, hint) = if PLANNED_KEYS.contains(&key) {
                (format!("`{key}` is not supported by this version"), Some("remove it".to_owned()))
            } else {
                (
                    format!("{place} has no key `{key}`"),
                    near.map(|near| format!("did you mean `{near}`?")),
                )
            };
            self.report.push(
                DiagnosticBuilder::error(name.span(), message)
                    .allowed(known.join(", "))
                    .maybe_hint(hint),
            );
        }
        unknown
    }

    /// Reports a value of the wrong type.
    pub fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, needed: &str, hint: Option<String>) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let draft = DiagnosticBuilder::error(
            value.span(),
            format!("this is {found}, but {needed} is needed"),
        );
        self.report.push(draft.allowed(needed).maybe_hint(hint));
    }
}

/// The known word that is closest to an unknown one, if any is close.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let distance = |candidate: &str| strsim::osa_distance(&lower, candidate);
    let close = known.iter().map(|&candidate| (distance(candidate), candidate)).min()?;
    (close.0 <= 2.max(word.chars().count() / 3) && close.0 < close.1.chars().count())
        .then_some(close.1)
}

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
            Ok(expanded) => Some(Self {
                raw: expanded.from_environment.then(|| raw.clone().into_owned()),
                value: expanded.value,
            }),
            Err(errors) => {
                for error in errors {
                    let span = reader.report.source().within(&value.span(), &error.needle());
                    let draft = DiagnosticBuilder::error(span, error.message());
                    reader.report.push(draft.hint(error.hint()));
                }
                None
            }
        }
    }
}

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
        let draft = DiagnosticBuilder::error(
            value.span(),
            format!("{kind} must be a string with a unit, but this is a bare number"),
        );
        reader.report.push(draft.allowed(form).hint(format!("write \"{number}{base}\"")));
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
                    let draft = DiagnosticBuilder::error(
                        value.span(),
                        "this number is negative or too large",
                    );
                    reader.report.push(draft.allowed("a whole number from 0 to 2^63 - 1"));
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
            let draft = DiagnosticBuilder::error(value.span(), "a share must be from 0 to 1");
            reader.report.push(draft.allowed("a number from 0 to 1").hint("1% is 0.01"));
        }
        share.map(Self)
    }
}

impl FromToml for bool {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        let DeValue::Boolean(flag) = value.get_ref() else {
            let quoted = matches!(value.get_ref(), DeValue::String(text) if matches!(text.as_ref(), "true" | "false"));
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
            let slot = T::read(value, reader).map_or(Setting::Bad, |read| {
                Setting::Given(Located { span: value.span(), value: read })
            });
            (Located { span: name.span(), value: name.get_ref().clone().into_owned() }, slot)
        };
        Some(Self(table.iter().map(read).collect()))
    }
}

/// Declares a table of the file: its keys with their types and defaults, for the decoder and for
/// the schema. Defaults are written in TOML.
macro_rules! table {
    (
        $(#[$meta:meta])*
        $name:ident ($place:literal, $example:literal) {
            $( $(#[$field_meta:meta])* $field:ident : $kind:ty $( = $default:tt )? ),* $(,)?
        }
    ) => {
        #[derive(schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        $(#[$meta])*
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[schemars(default $(, extend("default" = $default))?)]
                pub $field: $crate::config::decode::Setting<$kind>,
            )*
            /// The unknown keys of this table.
            #[schemars(skip)]
            #[allow(dead_code, reason = "only some tables need their unknown keys")]
            pub unknown: $crate::config::decode::UnknownKeys,
        }

        impl $name {
            /// All keys of this table.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];
        }

        impl $crate::config::decode::FromToml for $name {
            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                reader: &mut $crate::config::decode::TomlReader<'_>,
            ) -> Option<Self> {
                let table = reader.table(value, $example)?;
                Some(Self {
                    unknown: reader.unknown_keys(table, Self::KEYS, $place),
                    $( $field: reader.take(table, stringify!($field), table!(@default $($default)?)), )*
                })
            }
        }
    };
    (@default) => { None };
    (@default $default:tt) => { Some(stringify!($default)) };
}
pub(crate) use table;

/// Declares a choice between words, each with the value that it stands for.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident -> $target:ty, $kind:literal { $( $word:literal => $value:expr ),* $(,)? }) => {
        $(#[$meta])*
        pub struct $name(pub $target);

        impl $name {
            const WORDS: &'static [&'static str] = &[$($word),*];
        }

        impl $crate::config::decode::FromToml for $name {
            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                reader: &mut $crate::config::decode::TomlReader<'_>,
            ) -> Option<Self> {
                match $crate::config::decode::word(value, reader, $kind, Self::WORDS)? {
                    $( $word => Some(Self($value)), )*
                    _ => None,
                }
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": Self::WORDS })
            }
        }
    };
}
pub(crate) use words;

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
