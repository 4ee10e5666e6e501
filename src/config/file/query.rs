//! `query` of a route: a word, a list, or a table.

use toml::Spanned;
use toml::de::DeValue;

use crate::config::decode::{FromToml, TomlList, TomlReader, TomlString, table, word};
use crate::config::keywords::OrderWord;

table! {
    /// Which query parameters tell entries apart, and whether their order does.
    QuerySection("query", "{ except = [\"utm_*\"] }") {
        /// Only these.
        only: TomlList<TomlString>,
        /// All but these, where `*` stands for any text. The origin does not get them on a fill.
        except: TomlList<TomlString>,
        /// Whether the order of parameters of different names counts. With `ignore` the origin gets
        /// them by their names on a fill.
        order: OrderWord = "keep",
    }
}

/// The form of `query`: a word, a list, or a table.
pub enum QueryForm {
    /// All parameters.
    All,
    /// No parameters.
    None,
    /// Only these parameters.
    Only(TomlList<TomlString>),
    /// Only some parameters or all but some, and their order.
    Table(Box<QuerySection>),
}

impl FromToml for QueryForm {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(_) => TomlList::read(value, reader).map(Self::Only),
            DeValue::Table(_) => {
                QuerySection::read(value, reader).map(|section| Self::Table(Box::new(section)))
            }
            DeValue::String(_) => match word(
                value,
                reader,
                "a rule for the query (a list of parameters goes in brackets)",
                &["all", "none"],
            )? {
                "all" => Some(Self::All),
                _ => Some(Self::None),
            },
            _ => {
                let needed = "\"all\", \"none\", a list of parameters, or a table such as \
                              { except = [\"utm_*\"] }";
                reader.wrong_type(value, needed, None);
                None
            }
        }
    }
}
