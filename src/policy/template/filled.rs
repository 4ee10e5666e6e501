//! A template of an entry's tags in which the request has told its fields, and the body of the
//! response tells the rest.

use crate::outcome::Reason;
use crate::policy::field::{FieldSource, FieldView};
use crate::policy::response_fields;
use crate::policy::tag::Tag;
use crate::policy::template::{Template, TemplatePart, longer};

/// A template that reads the response, with what the request says of its other fields.
#[derive(Clone, Debug)]
pub struct FilledTemplate {
    template: Template,
    /// The values of each part that is a field of the request; none of the others.
    values: Box<[Vec<Vec<u8>>]>,
}

impl Template {
    /// Whether a field of it is read from the response.
    #[must_use]
    pub fn reads_response(&self) -> bool {
        self.fields().any(|field| matches!(field.source, FieldSource::Response(_)))
    }

    /// The template for the response to this request; `None` if it reads no response.
    #[must_use]
    pub fn filled(&self, view: &FieldView<'_>) -> Option<FilledTemplate> {
        if !self.reads_response() {
            return None;
        }
        let values = |part: &TemplatePart| match part {
            TemplatePart::Field(field) => match &field.source {
                FieldSource::Response(_) => Some(Vec::new()),
                FieldSource::Caller => {
                    Some(view.caller_names().into_iter().map(String::into_bytes).collect())
                }
                // Each way to write a number, as in `Template::entry_tags`.
                FieldSource::Body(_) => Some(field.every_value(view)?),
                // A request that lacks a field of a tag has no entry.
                _ => Some(vec![field.value(view).ok()?.unwrap_or_default().into_owned()]),
            },
            TemplatePart::Text(_) => Some(Vec::new()),
        };
        let values = self.parts.iter().map(values).collect::<Option<_>>()?;
        Some(FilledTemplate { template: self.clone(), values })
    }
}

impl FilledTemplate {
    /// Adds the tags of an entry with this body, and their families; at most so many.
    ///
    /// # Errors
    /// Why the response must not be stored: a purge might miss it.
    pub fn entry_tags(&self, body: &[u8], most: usize, tags: &mut Vec<Tag>) -> Result<(), Reason> {
        let mut names = vec![String::new()];
        for (at, (part, values)) in self.template.parts.iter().zip(&self.values).enumerate() {
            let field = match part {
                TemplatePart::Text(text) => {
                    for name in &mut names {
                        name.push_str(text);
                    }
                    continue;
                }
                TemplatePart::Field(field) => field,
            };
            tags.extend(names.iter().map(|known| self.template.family(known, at)));
            let read: Vec<Vec<u8>>;
            let values = match &field.source {
                FieldSource::Response(pointer) => {
                    read = values_of(body, pointer, most, field.is_optional)?;
                    &read
                }
                _ => values,
            };
            if names.len().saturating_mul(values.len()) > most || tags.len() > most {
                return Err(Reason::TooManyTags);
            }
            names = longer(&names, values);
        }
        tags.extend(names.iter().map(|name| Tag::new(name)));
        Ok(())
    }
}

/// The values of a field of the response.
fn values_of(
    body: &[u8],
    pointer: &str,
    most: usize,
    is_optional: bool,
) -> Result<Vec<Vec<u8>>, Reason> {
    let found = response_fields::read(body, pointer, most).ok_or(Reason::TagsUnread)?;
    if found.has_too_many {
        return Err(Reason::TooManyTags);
    }
    if found.is_unreadable || (found.is_missing && !is_optional) {
        return Err(Reason::TagsUnread);
    }
    let mut values: Vec<Vec<u8>> = found.values.into_iter().map(String::into_bytes).collect();
    if found.is_missing {
        values.push(Vec::new());
    }
    values.sort_unstable();
    values.dedup();
    Ok(values)
}
