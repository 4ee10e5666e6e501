//! Decodes the TOML tree into the types of the file, value by value, so that one wrong value never
//! hides another. It knows types, variables and unknown keys, not the meaning of settings.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::DiagnosticCollector;
use super::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};

mod browser;
mod defaults;
mod join;
mod macros;
mod one_or_more;
mod pointers;
mod strip;
mod text;
mod ttl;
mod value_table;
mod values;

pub use self::browser::BrowserForm;
pub use self::defaults::{DefaultValues, OWN_KEYS, give_defaults};
pub use self::join::join;
pub(crate) use self::macros::{table, words};
pub use self::one_or_more::{NamesForm, SecretsForm, TextsForm};
pub use self::pointers::NamedTexts;
pub use self::strip::StripForm;
pub use self::text::{TomlString, word};
pub use self::ttl::TtlForm;
pub use self::value_table::ValueTable;
pub use self::values::{Count, Fraction, NamedTable, Period, Size, TomlList};
pub use crate::spelling::nearest;

/// The keys at the top of the file. Appended to its end, they land in its last section.
const TOP_KEYS: [&str; 4] = ["mode", "watch", "include", "fronts"];

/// Where a key of the top of the file belongs, if it is one.
fn top_hint(key: &str) -> Option<String> {
    TOP_KEYS.contains(&key).then(|| {
        format!(
            "put `{key}` at the top of the file, before the first [section]: what follows a \
             section belongs to it"
        )
    })
}

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
    pub fn is_left_out(&self, value: &Spanned<DeValue<'_>>) -> bool {
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
            let near = near.map(|near| format!("did you mean `{near}`?"));
            let message = format!("{place} has no key `{key}`");
            self.report.push(
                DiagnosticBuilder::error(name.span(), message)
                    .allowed(known.join(", "))
                    .maybe_hint(top_hint(key).or(near)),
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
        let builder = DiagnosticBuilder::error(
            value.span(),
            format!("this is {found}, but {needed} is needed"),
        );
        self.report.push(builder.allowed(needed).maybe_hint(hint));
    }
}

/// The key of a field of the file's types: `match` is a word of Rust as well, and is a field as
/// `r#match`.
pub const fn key_of(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}
