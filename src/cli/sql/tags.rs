//! Tables, and tags whose fields are columns, as the command line names them.

use std::sync::Arc;

use crate::policy::field::{Field, FieldSource};
use crate::policy::template::Template;

/// The longest name in a database, in bytes.
pub(super) const MAX_NAME: usize = 63;

/// A table with its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SqlTable {
    pub(super) schema: String,
    pub(super) name: String,
}

impl SqlTable {
    /// Reads `table` or `schema.table`. An empty default is the schema of the connection.
    pub(super) fn parse(text: &str, default_schema: &str) -> Result<Self, String> {
        let (schema, name) = text.split_once('.').unwrap_or((default_schema, text));
        let is_default = schema.is_empty() && !text.contains('.');
        let schema = if is_default { "" } else { checked_name(schema, "schema")? };
        Ok(Self { schema: schema.to_owned(), name: checked_name(name, "table")?.to_owned() })
    }
}

/// A name that can be written into SQL, quoted.
pub(super) fn checked_name<'a>(name: &'a str, kind: &str) -> Result<&'a str, String> {
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(format!(
            "{name:?} is no name of a {kind}: write 1 to {MAX_NAME} bytes, without control \
             characters"
        ));
    }
    Ok(name)
}

/// A part of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TagPart {
    Text(String),
    /// A column, and whether the tag is made without it where it is null or empty.
    Column(String, bool),
}

/// A tag whose fields are columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColumnTag {
    /// As it was written.
    pub(super) text: String,
    pub(super) parts: Vec<TagPart>,
}

impl ColumnTag {
    /// Reads a tag such as `campaigns:{tenant_id}`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let any_field =
            |name: &str| Some(Arc::new(Field::new(name, FieldSource::Query(name.into()))));
        Template::parse(text, &any_field)
            .map_err(|error| format!("{}; {}", error.what, error.hint))?;
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                parts.push(TagPart::Text(before.to_owned()));
            }
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            let (column, is_optional) = match name.strip_suffix('?') {
                Some(column) => (column, true),
                None => (name, false),
            };
            parts.push(TagPart::Column(checked_name(column, "column")?.to_owned(), is_optional));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(TagPart::Text(rest.to_owned()));
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_text_and_columns() {
        let column = |name: &str, is_optional| TagPart::Column(name.to_owned(), is_optional);
        let text = |text: &str| TagPart::Text(text.to_owned());
        let parts = |text: &str| ColumnTag::parse(text).map(|tag| tag.parts);
        assert_eq!(parts("a:{x}"), Ok(vec![text("a:"), column("x", false)]));
        assert_eq!(
            parts("{x?}-{Y}:b"),
            Ok(vec![column("x", true), text("-"), column("Y", false), text(":b")])
        );
        for bad in ["", "a b", "a:{x", "a:x}", "a:{}", "a:{?}"] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_table_has_a_schema() {
        let table = |text: &str| SqlTable::parse(text, "public").map(|t| (t.schema, t.name));
        assert_eq!(table("a"), Ok(("public".to_owned(), "a".to_owned())));
        assert_eq!(table("s.a.b"), Ok(("s".to_owned(), "a.b".to_owned())));
        let unnamed = SqlTable::parse("a", "").map(|t| (t.schema, t.name));
        assert_eq!(unnamed, Ok((String::new(), "a".to_owned())));
        assert!(SqlTable::parse(".a", "").is_err());
        for bad in ["", ".a", "s.", "a\nb"] {
            assert!(table(bad).is_err(), "{bad}");
        }
    }
}
