//! Compiles `[[purges]]`: paths, methods, tags and the times to purge again.

use std::collections::HashSet;
use std::str::FromStr as _;
use std::time::Duration;

use http::Method;

use super::apps::AppTable;
use super::fields::FieldTable;
use super::graphql_tags;
use super::rule_names::{BodyUse, PATH_FORM, RuleNames, pattern};
use crate::config::context::CompileContext;
use crate::config::decode::{Located, Period, Setting, TomlList, TomlString};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file;
use crate::policy::folder::{FOLDER_FORM, Folder};
use crate::policy::glob::Glob;
use crate::policy::purge_rule;
use crate::policy::purge_rule::PurgeRule;
use crate::policy::route::Pattern;

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_hours(24);
/// How many times a rule may purge again.
const MAX_REPURGES: usize = 8;

/// A purge rule.
pub struct CompiledPurge {
    /// The new value.
    pub rule: PurgeRule,
}

/// Compiles the purge rules.
pub fn purges(
    list: Option<&TomlList<file::PurgeSection>>,
    (fields, apps): (&FieldTable, &AppTable),
    context: &mut CompileContext,
) -> Vec<CompiledPurge> {
    list.map_or(&[][..], |list| &list.0)
        .iter()
        .filter_map(|located| purge(located, (fields, apps), context))
        .collect()
}

fn purge(
    located: &Located<file::PurgeSection>,
    (fields, apps): (&FieldTable, &AppTable),
    context: &mut CompileContext,
) -> Option<CompiledPurge> {
    let file = &located.value;
    let pattern = pattern(&file.path, (&located.span, &file.unknown), fields, context);
    let names = RuleNames::new(fields, &file.path, pattern.as_ref(), BodyUse::Purge);
    let under = under(&file.under, context);
    let given = if matches!(file.under, Setting::Absent) {
        file.tags.required(
            "tags",
            (&located.span, &file.unknown),
            "tags = [\"…\"]",
            &mut context.report,
        )
    } else {
        file.tags.given()
    };
    if let Some(empty) = given
        .filter(|tags| tags.value.0.is_empty() && context.report.source().is_empty_list(&tags.span))
    {
        let builder = DiagnosticBuilder::error(
            empty.span.clone(),
            "a purge rule without tags purges nothing",
        );
        context.report.push(
            builder
                .allowed("at least one tag")
                .hint("name the tags of the routes that show this data"),
        );
    }
    let tags = names.templates(&file.tags, context);
    let except = except(&file.except, context);
    let (app, conditions) = apps.conditions(&file.app, &file.r#match, context);
    let methods = match &file.methods {
        Setting::Absent => None,
        slot => {
            Some(slot.get().map(|list| context.names(&list.0, method)).unwrap_or_default().into())
        }
    };
    if let Some(empty) =
        file.methods.given().filter(|methods| context.report.source().is_empty_list(&methods.span))
    {
        let builder = DiagnosticBuilder::error(
            empty.span.clone(),
            "a purge rule without methods never applies",
        );
        context
            .report
            .push(builder.hint("remove the key: then the rule applies to every unsafe method"));
    }
    graphql_tags::check_purge(file, &tags, context);
    let mutations = mutations(&file.mutations, context);
    let repurge_after = repurges(&file.repurge_after, context);
    let (guard, purge_on) = (file.guard.get()?.0, file.purge_on.get()?.0);
    let place = context.report.source().rule_place(located.span.start);
    let pattern = pattern?;
    let for_writes = pattern.for_writes();
    Some(CompiledPurge {
        rule: PurgeRule {
            place,
            app,
            pattern,
            except,
            methods,
            conditions,
            mutations,
            tags,
            under,
            guard,
            purge_on,
            repurge_after,
            for_writes,
        },
    })
}

/// The root fields of GraphQL mutations that a rule is for.
fn mutations(
    slot: &Setting<TomlList<TomlString>>,
    context: &mut CompileContext,
) -> Option<Box<[Glob]>> {
    let list = slot.given()?;
    if list.value.0.is_empty() && context.report.source().is_empty_list(&list.span) {
        let builder = DiagnosticBuilder::error(
            list.span.clone(),
            "a purge rule for no mutation never applies",
        );
        context.report.push(builder.hint("remove the key: then the rule is for every write"));
    }
    let read = |context: &mut CompileContext, text: &Located<TomlString>| {
        let written = text.value.as_str();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '*';
        if !written.is_empty() && written.chars().all(fits) {
            return Some(Glob::new(written));
        }
        let what = format!("`{}` is no name of a field", text.value.shown());
        let allowed = Some("names of root fields, such as \"createOrder\" and \"update*\"");
        let hint = "write the field of `type Mutation` in the schema, without arguments";
        context.report.malformed(text, "a root field of a mutation", what, allowed, hint);
        None
    };
    Some(context.names(&list.value.0, read).into())
}

/// The folder that a rule purges.
fn under(slot: &Setting<TomlString>, context: &mut CompileContext) -> Option<Folder> {
    let text = slot.given()?;
    let folder = Folder::parse(text.value.as_str()).map_err(|error| {
        let form = Some(FOLDER_FORM);
        context.report.malformed(text, "a folder", &error.what, form, &error.hint);
    });
    folder.ok()
}

/// The paths that a rule does not apply to.
fn except(slot: &Setting<TomlList<TomlString>>, context: &mut CompileContext) -> Box<[Pattern]> {
    let list = slot.get().map_or(&[][..], |list| &list.0);
    let read = |context: &mut CompileContext, text: &Located<TomlString>| {
        Pattern::parse(text.value.as_str())
            .map_err(|error| {
                context.report.malformed(text, "a path", &error.what, PATH_FORM, &error.hint);
            })
            .ok()
    };
    context.names(list, read).into()
}

fn method(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Method> {
    let shown = text.value.shown();
    let upper = text.value.as_str().to_ascii_uppercase();
    let parsed = Method::from_str(text.value.as_str()).ok();
    let (what, hint) = match &parsed {
        _ if matches!(&*upper, "*" | "ANY" | "ALL") => (
            format!("`{shown}` is not a method"),
            "remove `methods`: without it, every unsafe method counts".to_owned(),
        ),
        None => (format!("`{shown}` is not a method"), "write it as \"POST\"".to_owned()),
        Some(_) if text.value.as_str() != upper => {
            (format!("methods are upper case, but `{shown}` is not"), format!("write \"{upper}\""))
        }
        Some(method) if *method == Method::HEAD => {
            ("`HEAD` goes with GET".to_owned(), "write \"GET\", which is for both".to_owned())
        }
        Some(method) if *method == Method::GET => return parsed,
        Some(method) if purge_rule::is_safe(method) || *method == Method::CONNECT => {
            (format!("`{shown}` is a safe method, so it never purges"), "remove it".to_owned())
        }
        Some(_) => return parsed,
    };
    context.report.malformed(
        text,
        "a method that changes data",
        what,
        Some("methods that change data, such as POST, PUT, PATCH, DELETE; and GET, where it does"),
        &hint,
    );
    None
}

fn repurges(slot: &Setting<TomlList<Period>>, context: &mut CompileContext) -> Box<[Duration]> {
    let list = slot.get().map_or(&[][..], |list| &list.0);
    if let (Some(given), true) = (slot.given(), list.len() > MAX_REPURGES) {
        let builder = DiagnosticBuilder::error(
            given.span.clone(),
            format!("the list has {} times", list.len()),
        );
        context
            .report
            .push(builder.allowed(format!("at most {MAX_REPURGES}")).hint("remove some of them"));
    }
    let (mut seen, mut times) = (HashSet::new(), Vec::new());
    for period in list {
        let fits =
            context.in_range(&period.span, period.value.0, MS, DAY, crate::units::show_duration);
        if fits && !seen.insert(period.value.0) {
            context.report.push(
                DiagnosticBuilder::error(period.span.clone(), "this time is listed twice")
                    .hint("remove one of the two"),
            );
        }
        times.push(period.value.0);
    }
    times.into()
}
