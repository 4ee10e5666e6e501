//! Compiles `[[sources]]`: what is listened to, and the tags that it may name.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::config::compile::pointer::pointer;
use crate::config::context::CompileContext;
use crate::config::decode::{Located, NamedTexts, Setting, TomlList, TomlString};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file::SourceSection;
use crate::config::keywords::SourceWordKind;
use crate::policy::field::{Field, FieldSource};
use crate::policy::template::{Template, pointer_to};
use crate::redis::RedisSettings;
use crate::sources::{MAX_SOURCES, MAX_TEMPLATES, SourceSettings};

mod kinds;
mod mysql;
mod webhook;

/// The longest time that changes which are not heard of may stay unseen.
const HOUR: Duration = Duration::from_hours(1);

pub use self::kinds::DEFAULT_CHANNEL;
pub(super) use self::kinds::{url_source, web_url};
pub use self::mysql::DEFAULT_TABLE;

/// The most characters of a name.
const MAX_NAME: usize = 64;

/// Compiles the sources. Those with an error are left out, but all their keys are checked.
pub fn sources(
    list: Option<&TomlList<SourceSection>>,
    redis: Option<&RedisSettings>,
    context: &mut CompileContext,
) -> Vec<SourceSettings> {
    let list = list.map_or(&[][..], |list| &list.0);
    if let Some(last) = list.get(MAX_SOURCES) {
        let message = format!("the file has {} sources", list.len());
        let builder = DiagnosticBuilder::error(last.span.clone(), message);
        let builder = builder.allowed(format!("at most {MAX_SOURCES}"));
        context.report.push(builder.hint("let one of them tell of several tags"));
    }
    let mut names = HashSet::new();
    let mut compiled: Vec<SourceSettings> = Vec::new();
    for located in list {
        let source = source(located, (&names, redis), context);
        if let Some(source) = source {
            if let Some(path) = source.webhook_path()
                && compiled.iter().any(|other| other.webhook_path() == Some(path))
            {
                let message = format!("another source receives the webhooks to {path}");
                let builder = DiagnosticBuilder::error(located.span.clone(), message);
                context.report.push(builder.hint("give each its own `path`"));
            }
            names.insert(Arc::clone(&source.name));
            compiled.push(source);
        }
    }
    compiled
}

fn source(
    located: &Located<SourceSection>,
    (taken, redis): (&HashSet<Arc<str>>, Option<&RedisSettings>),
    context: &mut CompileContext,
) -> Option<SourceSettings> {
    let (file, table) = (&located.value, (&located.span, &located.value.unknown));
    let word = file.kind.required("kind", table, "kind = \"postgres\"", &mut context.report);
    let degraded_ttl = context.period(&file.degraded_ttl, Duration::ZERO, HOUR);
    let tags = tags(located, context);
    let word = word.map(|word| word.value.0);
    let kind = ("source", word.map(SourceWordKind::as_str));
    let name = source_name(&file.name, kind, taken, context);
    let kind = kinds::kind(word?, located, redis, context);
    Some(SourceSettings { name: name?, kind: kind?, tags: tags?, degraded_ttl })
}

/// A name: as written, or by the kind, with a number where that is taken.
pub(super) fn source_name(
    slot: &Setting<TomlString>,
    (what, kind): (&str, Option<&str>),
    taken: &HashSet<Arc<str>>,
    context: &mut CompileContext,
) -> Option<Arc<str>> {
    let given = match slot {
        Setting::Given(given) => given,
        Setting::Bad => return None,
        Setting::Absent | Setting::Default(_) => {
            let kind = kind?;
            let numbered = (2..).map(|n| format!("{kind}-{n}"));
            let mut names = std::iter::once(kind.to_owned()).chain(numbered);
            return names.find(|name| !taken.contains(name.as_str())).map(Arc::from);
        }
    };
    let text = given.value.as_str();
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if !(1..=MAX_NAME).contains(&text.len()) || !text.bytes().all(fits) {
        let message = format!("`{}` is not a name of a {what}", given.value.shown());
        let allowed = Some("1 to 64 letters, digits, `_`, `.`, `-`");
        context.report.malformed(given, "a name", message, allowed, "write it as \"orders-db\"");
        return None;
    }
    if taken.contains(text) {
        let message = format!("another {what} has this name");
        let builder = DiagnosticBuilder::error(given.span.clone(), message);
        context
            .report
            .push(builder.hint("give each its own: metrics and logs are told apart by it"));
        return None;
    }
    Some(text.into())
}

/// The templates of the tags that it may name. Their fields are members of JSON objects.
fn tags(located: &Located<SourceSection>, context: &mut CompileContext) -> Option<Arc<[Template]>> {
    let (file, table) = (&located.value, (&located.span, &located.value.unknown));
    let example = "tags = [\"campaigns:{tenant_id}\"], the tags of the routes that show this data";
    let given = file.tags.required("tags", table, example, &mut context.report)?;
    let list = &given.value.0;
    if list.is_empty() && context.report.source().is_empty_list(&given.span) {
        let builder =
            DiagnosticBuilder::error(given.span.clone(), "a source without tags purges nothing");
        context.report.push(builder.allowed("at least one tag").hint(example));
        return None;
    }
    if let Some(last) = list.get(MAX_TEMPLATES) {
        let message = format!("the source has {} tags", list.len());
        let builder = DiagnosticBuilder::error(last.span.clone(), message);
        context
            .report
            .push(builder.allowed(format!("at most {MAX_TEMPLATES}")).hint("make two sources"));
        return None;
    }
    let mut templates = Vec::new();
    let pointers = pointers(&file.fields, list, context)?;
    let read = |context: &mut CompileContext, text: &Located<TomlString>| {
        templates.extend(template(text, &pointers, context));
        Some(text.value.as_str().to_owned())
    };
    context.names(list, read);
    (templates.len() == list.len()).then(|| templates.into())
}

/// The JSON pointers of the fields that `fields` names. None may be there for nothing.
fn pointers(
    slot: &Setting<NamedTexts>,
    tags: &[Located<TomlString>],
    context: &mut CompileContext,
) -> Option<HashMap<String, Box<str>>> {
    let given = match slot {
        Setting::Given(given) => given,
        Setting::Bad => return None,
        Setting::Absent | Setting::Default(_) => return Some(HashMap::new()),
    };
    let mut pointers = HashMap::new();
    for (name, text) in &given.value.0 {
        let braced = [format!("{{{}}}", name.value), format!("{{{}?}}", name.value)];
        if !tags.iter().any(|tag| braced.iter().any(|field| tag.value.as_str().contains(field))) {
            let message = format!("no tag of this source has the field `{}`", name.value);
            let builder = DiagnosticBuilder::error(name.span.clone(), message);
            context.report.push(builder.hint("remove it, or write it in braces in `tags`"));
        }
        pointers.insert(name.value.clone(), pointer(text, context)?);
    }
    Some(pointers)
}

fn template(
    text: &Located<TomlString>,
    pointers: &HashMap<String, Box<str>>,
    context: &mut CompileContext,
) -> Option<Template> {
    let unfit = RefCell::new(None);
    let resolve = |written: &str| {
        let (name, is_optional) = match written.strip_suffix('?') {
            Some(name) => (name, true),
            None => (written, false),
        };
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if name.is_empty() || !name.bytes().all(fits) {
            unfit.borrow_mut().get_or_insert_with(|| written.to_owned());
        }
        let pointer = pointers.get(name).cloned();
        let source = FieldSource::Body(pointer.unwrap_or_else(|| pointer_to(name).into()));
        Some(Arc::new(Field { is_optional, ..Field::new(name, source) }))
    };
    let parsed = Template::parse(text.value.as_str(), &resolve);
    let form = Some("text with fields in braces, such as \"campaigns:{tenant_id}\"");
    let parsed = match (parsed, unfit.into_inner()) {
        (Ok(template), None) => return Some(template),
        (Err(error), _) => (error.what, error.hint),
        (Ok(_), Some(name)) => (
            format!("`{name}` is no name of a member of a JSON object"),
            "write letters, digits, `_`, `-` and `.`; each field is a member of the object that \
             the source is told"
                .to_owned(),
        ),
    };
    context.report.malformed(text, "a tag", parsed.0, form, &parsed.1);
    None
}
