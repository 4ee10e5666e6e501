//! The path of a rule, and the fields that its key and tags may name: declared fields and the
//! captures of the path.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use super::fields::{FieldLookup, FieldTable};
use super::pointer::is_pointer;
use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlList, TomlString, UnknownKeys, nearest};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::policy::field::{Field, FieldSource};
use crate::policy::route::{Pattern, WHOLE_BODY};
use crate::policy::template::Template;

/// The fields that one rule may use: declared fields and its own captures.
pub(super) struct RuleNames<'a> {
    fields: &'a FieldTable,
    // The path as written, if it is a string: an unknown name in it may be meant as a capture.
    path: Option<&'a TomlString>,
    pattern: Option<&'a Pattern>,
    captures: Vec<Arc<Field>>,
    bodies: BodyUse,
}

/// What a rule may use of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyUse {
    /// Nothing.
    None,
    /// Every member of the body of a write.
    Purge,
    /// Members of the body of a read, each by its one place, and the whole body in the key.
    Key,
}

/// What is allowed as a path.
pub(super) const PATH_FORM: Option<&str> =
    Some("segments of text and {captures}, and {*rest} for everything below at the end");

/// The name of the built-in field; a declared field or a capture of this name hides it.
const CALLER: &str = "caller";

/// What to do about a name that is no field.
const UNKNOWN_FIELD: &str = "define it in [fields], as in { header = \"x-name\" }, or capture it \
                             in the path as {name}";

/// What a field that is read from the response begins with. A JSON pointer follows.
const RESPONSE: &str = "response:";

/// The field that a name such as `response:/items/*/id` stands for, if it stands for one. Whether
/// the pointer is one is checked apart.
fn response_field(name: &str) -> Option<Arc<Field>> {
    let pointer = name.strip_prefix(RESPONSE)?;
    Some(Arc::new(Field::new(name, FieldSource::Response(pointer.into()))))
}

/// The name of a field, and whether a `?` says that a request may lack it.
fn split_optional(name: &str) -> (&str, bool) {
    name.strip_suffix('?').map_or((name, false), |name| (name, true))
}

fn optional(field: &Field) -> Arc<Field> {
    Arc::new(Field { is_optional: true, ..field.clone() })
}

/// SECURITY: who a caller is must never be nobody by omission.
const fn may_be_absent(source: &FieldSource) -> bool {
    match source {
        FieldSource::Header(_)
        | FieldSource::Cookie(_)
        | FieldSource::Session(_)
        | FieldSource::Query(_)
        | FieldSource::Path(_)
        | FieldSource::Body(_)
        | FieldSource::Response(_)
        // A token that is not verified is not absent.
        | FieldSource::Jwt(_)
        // An origin that does not answer is not absent.
        | FieldSource::Identity(_) => true,
        FieldSource::Host | FieldSource::Auth(_) | FieldSource::Client(_) | FieldSource::Caller => {
            false
        }
    }
}

/// The pattern of a rule's path. Reports captures that shadow a declared field.
pub(super) fn pattern(
    slot: &Setting<TomlString>,
    table: (&SourceSpan, &UnknownKeys),
    fields: &FieldTable,
    context: &mut CompileContext,
) -> Option<Pattern> {
    let text = slot.required("path", table, "path = \"/api/…\"", &mut context.report)?;
    let pattern = match Pattern::parse(text.value.as_str()) {
        Ok(pattern) => pattern,
        Err(error) => {
            context.report.malformed(text, "a path", &error.what, PATH_FORM, &error.hint);
            return None;
        }
    };
    for capture in pattern.captures().filter(|capture| fields.declares(capture)) {
        let at = context.report.source().within(&text.span, capture);
        let message = if text.value.is_from_environment() {
            "a capture has".to_owned()
        } else {
            format!("the capture `{capture}` has")
        };
        let builder =
            DiagnosticBuilder::error(at, format!("{message} the name of a field in [fields]"));
        context.report.push(builder.hint("captures are fields themselves; rename one of the two"));
    }
    Some(pattern)
}

impl<'a> RuleNames<'a> {
    pub(super) fn new(
        fields: &'a FieldTable,
        path: &'a Setting<TomlString>,
        pattern: Option<&'a Pattern>,
        bodies: BodyUse,
    ) -> Self {
        let capture = |name: &str| Arc::new(Field::new(name, FieldSource::Path(name.into())));
        let captures =
            pattern.map(|pattern| pattern.captures().map(capture).collect()).unwrap_or_default();
        Self { fields, path: path.get(), pattern, captures, bodies }
    }

    /// Looks up a field of a key, or reports the text that names it.
    pub(super) fn key_field(
        &self,
        text: &Located<TomlString>,
        context: &mut CompileContext,
    ) -> Option<Arc<Field>> {
        if text.value.as_str().starts_with(RESPONSE) {
            let message = "what the response shows is for tags alone";
            let builder = DiagnosticBuilder::error(text.span.clone(), message);
            context.report.push(builder.hint(
                "remove it: the key is made before there is a response; write it into `tags`",
            ));
            return None;
        }
        let (name, is_optional) = split_optional(text.value.as_str());
        let is_hidden = self.captures.iter().any(|capture| &*capture.name == WHOLE_BODY)
            || self.fields.declares(WHOLE_BODY);
        if self.bodies == BodyUse::Key && name == WHOLE_BODY && !is_optional && !is_hidden {
            return Some(Arc::new(Field::new(WHOLE_BODY, FieldSource::Body("".into()))));
        }
        let field = self.field(text.value.as_str(), text, context)?;
        if field.source == FieldSource::Caller {
            let message = "`caller` is for tags alone";
            let builder = DiagnosticBuilder::error(text.span.clone(), message);
            context.report.push(builder.hint(
                "remove it: in scope \"private\" the whole credential is in the key; or name a \
                 field such as { auth = \"token\" }",
            ));
            return None;
        }
        Some(field)
    }

    /// Looks up a field, which a `?` after its name makes optional, or reports the text that names
    /// it.
    fn field(
        &self,
        name: &str,
        text: &Located<TomlString>,
        context: &mut CompileContext,
    ) -> Option<Arc<Field>> {
        let (name, is_optional) = split_optional(name);
        let field = self.declared(name, text, context)?;
        if !is_optional {
            return Some(field);
        }
        if !may_be_absent(&field.source) {
            let at = context.report.source().within(&text.span, name);
            let builder = DiagnosticBuilder::error(at, format!("`{name}` cannot be optional"));
            context.report.push(
                builder
                    .allowed(
                        "`?` after fields from a header, a cookie, the query, the path, a \
                         body, a token, the response",
                    )
                    .hint("remove the `?`"),
            );
        }
        Some(optional(&field))
    }

    fn declared(
        &self,
        name: &str,
        text: &Located<TomlString>,
        context: &mut CompileContext,
    ) -> Option<Arc<Field>> {
        let at = || context.report.source().within(&text.span, name);
        let hidden = text.value.is_from_environment();
        let shown = if hidden { "the field named here".to_owned() } else { format!("`{name}`") };
        if let Some(capture) = self.captures.iter().find(|capture| *capture.name == *name) {
            return Some(Arc::clone(capture));
        }
        if let Some(field) = response_field(name) {
            if is_pointer(&name[RESPONSE.len()..]) {
                return Some(field);
            }
            let message = format!("{shown} has no JSON pointer after `{RESPONSE}`");
            let builder = DiagnosticBuilder::error(at(), message)
                .allowed("a path such as /id or /items/*/id")
                .hint("write it as {response:/items/*/id}");
            context.report.push(builder);
            return None;
        }
        let builder = match self.fields.lookup(name) {
            FieldLookup::Found(field) => match self.unfit(&field, &shown) {
                None => return Some(field),
                Some((message, hint)) => DiagnosticBuilder::error(at(), message).hint(hint),
            },
            // The path or [fields] has errors, so the name may be defined there.
            FieldLookup::Lost => return None,
            FieldLookup::Unknown
                if self.pattern.is_none()
                    && self.path.is_none_or(|path| path.as_str().contains(name)) =>
            {
                return None;
            }
            FieldLookup::Unknown if name == CALLER => {
                return Some(Arc::new(Field::new(CALLER, FieldSource::Caller)));
            }
            FieldLookup::Unknown => {
                let captures = self.captures.iter().map(|capture| &*capture.name);
                let known: Vec<&str> = self.fields.names().chain(captures).collect();
                let near = nearest(name, &known).filter(|_| !hidden);
                let hint = near.map_or_else(
                    || UNKNOWN_FIELD.to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                let message = format!("{shown} is not a field");
                let builder = DiagnosticBuilder::error(at(), message).hint(hint);
                if known.is_empty() { builder } else { builder.allowed(known.join(", ")) }
            }
        };
        context.report.push(builder);
        None
    }

    /// Why a declared field cannot be used here, and what to do instead.
    fn unfit(&self, field: &Field, shown: &str) -> Option<(String, String)> {
        match &field.source {
            FieldSource::Body(_) if self.bodies == BodyUse::None => Some((
                format!("{shown} comes from the body, which this route does not read"),
                "take it from the path, the query, a header or a cookie; or let the route answer \
                 POST, with methods = [\"POST\"] and read_only = true"
                    .to_owned(),
            )),
            FieldSource::Body(pointer)
                if self.bodies == BodyUse::Key && pointer.split('/').any(|it| it == "*") =>
            {
                Some((
                    format!("{shown} has several values, and a key has one"),
                    "name one member, as in { body = \"/filter/id\" }".to_owned(),
                ))
            }
            FieldSource::Path(capture)
                if self.pattern.is_some()
                    && !self.captures.iter().any(|own| *own.name == **capture) =>
            {
                Some((
                    format!(
                        "{shown} comes from the capture `{capture}`, which this path does not have"
                    ),
                    format!("add {{{capture}}} to the path"),
                ))
            }
            _ => None,
        }
    }

    /// Compiles the templates of a list. Reports all unknown fields of a template, not only the
    /// first.
    pub(super) fn templates(
        &self,
        slot: &Setting<TomlList<TomlString>>,
        context: &mut CompileContext,
    ) -> Box<[Template]> {
        let list = slot.get().map_or(&[][..], |list| &list.0);
        let mut templates = Vec::new();
        let mut read = |context: &mut CompileContext, text: &Located<TomlString>| {
            templates.extend(self.template(text, context));
            Some(text.value.as_str().to_owned())
        };
        context.names(list, &mut read);
        templates.into()
    }

    fn template(
        &self,
        text: &Located<TomlString>,
        context: &mut CompileContext,
    ) -> Option<Template> {
        let used = RefCell::new(Vec::new());
        let known = |name: &str| {
            used.borrow_mut().push(name.to_owned());
            let (name, is_optional) = split_optional(name);
            let known = self.captures.iter().find(|capture| *capture.name == *name).cloned();
            // A placeholder, so that parsing continues. The unknown field is reported below.
            let known = known.or_else(|| response_field(name));
            let found = known.or_else(|| match self.fields.lookup(name) {
                FieldLookup::Found(field) => Some(field),
                FieldLookup::Unknown if name == CALLER => {
                    Some(Arc::new(Field::new(CALLER, FieldSource::Caller)))
                }
                FieldLookup::Unknown | FieldLookup::Lost => None,
            });
            let field = found.unwrap_or_else(|| Arc::new(Field::new(name, FieldSource::Host)));
            Some(if is_optional { optional(&field) } else { field })
        };
        let template = Template::parse(text.value.as_str(), &known);
        let mut seen = HashSet::new();
        for name in used.into_inner() {
            if seen.insert(name.clone()) {
                self.field(&name, text, context);
            }
        }
        match template {
            Ok(template) => Some(template),
            Err(error) => {
                context.report.malformed(
                    text,
                    "a tag",
                    &error.what,
                    Some("text with fields in braces, such as \"campaigns:{tenant}\""),
                    &error.hint,
                );
                None
            }
        }
    }
}
