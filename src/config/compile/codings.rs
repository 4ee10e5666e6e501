//! Compiles `[compress]`, and `compress` of routes.

use std::sync::Arc;

use crate::cache::encoder::LONGEST;
use crate::config::context::CompileContext;
use crate::config::decode::Located;
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file::{self, CodingsSection, ConfigFile};
use crate::config::model::ConfigLimits;
use crate::policy::compress_rule::CompressRule;
use crate::policy::route::RouteSpec;
use crate::policy::scope::Scope;
use crate::semantics::content_coding::Coding;
use crate::units::show_size;

/// Where `min_size` may be: what is shorter would not become smaller, and nothing longer is coded.
const MIN_SIZES: (u64, u64) = (64, LONGEST as u64);

/// The highest levels, in the order of [`Coding::ALL`]: those above take many times as long, and a
/// fill goes on for as long.
const MAX_LEVELS: [u64; 3] = [11, 6, 9];

/// `[compress]`; none without it.
pub(super) fn codings(file: &ConfigFile, context: &mut CompileContext) -> Option<CompressRule> {
    let section = &file.compress.given()?.value;
    let mut codings: Vec<Coding> = Vec::new();
    for Located { span, value } in section.codings.get().map_or(&[][..], |list| &list.0) {
        if codings.contains(&value.0) {
            let message = format!("`{}` is listed twice", value.0.as_str());
            let builder = DiagnosticBuilder::error(span.clone(), message);
            context.report.push(builder.hint("remove one of the two"));
        } else {
            codings.push(value.0);
        }
    }
    // A list of words that are none is empty, too, and has been reported.
    if let Some(given) = section.codings.given()
        && given.value.0.is_empty()
        && !context.report.has_errors()
    {
        let builder = DiagnosticBuilder::error(given.span.clone(), "the list has no coding");
        let builder = builder.allowed("\"zstd\", \"br\" and \"gzip\"");
        context.report.push(builder.hint("remove [compress] to compress nothing"));
    }
    let slots = [&section.zstd_level, &section.br_level, &section.gzip_level];
    let levels = std::array::from_fn(|at| {
        let level = context.count(slots[at], 1, MAX_LEVELS[at]);
        u8::try_from(level).unwrap_or(u8::MAX)
    });
    let min_size = context.size(&section.min_size, MIN_SIZES.0, MIN_SIZES.1);
    Some(CompressRule { codings: codings.into(), levels, min_size, private: false })
}

/// The rule of a route.
pub(super) fn of_route(
    file: &file::RouteSection,
    rule: Option<&CompressRule>,
    context: &mut CompileContext,
) -> Option<Arc<CompressRule>> {
    without_effect(file, rule.is_some(), context);
    let rule = rule?;
    match file.compress.get() {
        Some(false) => None,
        choice => Some(Arc::new(CompressRule { private: choice == Some(&true), ..rule.clone() })),
    }
}

/// Warns about `compress` of a route where it has no effect.
fn without_effect(file: &file::RouteSection, has_section: bool, context: &mut CompileContext) {
    let Some(given) = file.compress.given() else { return };
    if has_section || !given.value || context.report.is_default(&given.span) {
        return;
    }
    let message = "`compress` has no effect without [compress]";
    let builder = DiagnosticBuilder::warning(given.span.clone(), message);
    context.report.push(builder.hint("add a line [compress] before [[routes]]"));
}

/// Warns about what brings nothing, or costs more than it brings.
pub fn lint<'a>(
    section: &Located<CodingsSection>,
    routes: impl Iterator<Item = &'a RouteSpec>,
    limits: Option<&ConfigLimits>,
    context: &mut CompileContext,
) {
    let mut warn = |at: &SourceSpan, message: String, hint: &str| {
        context.report.push(DiagnosticBuilder::warning(at.clone(), message).hint(hint));
    };
    let Located { span, value: section } = section;
    let routes: Vec<&RouteSpec> = routes.collect();
    if !routes.iter().any(|route| codes(route)) {
        let is_private = |route: &&RouteSpec| route.scope == Scope::Private;
        let (message, hint) = if routes.iter().any(is_private) {
            (
                "[compress] has no effect: the routes are of scope \"private\"",
                "write compress = true in those that show no secret beside text that a stranger \
                 can choose (docs/src/how-to/compress.md)",
            )
        } else {
            ("[compress] has no effect: no route compresses", "remove it, or compress = false")
        };
        warn(span, message.to_owned(), hint);
    }
    if let (Some(given), Some(limits)) = (section.min_size.given(), limits)
        && given.value.0 > limits.object
    {
        let message = format!(
            "nothing is compressed: no body of this size is stored (`object` in [limits] is {})",
            show_size(limits.object)
        );
        warn(&given.span, message, "write min_size = \"1KiB\"");
    }
}

/// Whether a route codes some of its responses: those for guests are for everybody.
fn codes(route: &RouteSpec) -> bool {
    route.compress().is_some() || (route.compress.is_some() && route.signed_in.is_some())
}
