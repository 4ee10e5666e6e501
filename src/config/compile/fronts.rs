//! Compiles `fronts`, and keeps the rules of routes from dropping or passing what a front says of
//! the caller.

use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlList, TomlString};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file;
use crate::config::keywords::FrontWord;
use crate::policy::credential::CredentialRule;
use crate::policy::fronts::Fronts;

/// `fronts`. None may be listed twice.
pub fn fronts(slot: &Setting<TomlList<FrontWord>>, context: &mut CompileContext) -> Fronts {
    let mut fronts = Fronts::default();
    for Located { span, value } in slot.get().map_or(&[][..], |list| &list.0) {
        if fronts.has(value.0) {
            let message = format!("`{}` is listed twice", value.0.as_str());
            let builder = DiagnosticBuilder::error(span.clone(), message);
            context.report.push(builder.hint("remove one of the two"));
        }
        fronts = fronts.with(value.0);
    }
    fronts
}

/// SECURITY: rejects a list of a route that would take what says who asks out of the key and out of
/// the request, or send it to the origin without a place in the key.
pub fn guard_identity(
    file: &file::RouteSection,
    fronts: Fronts,
    credential: &CredentialRule,
    context: &mut CompileContext,
) {
    let guarded = |name: &str| {
        fronts.is_identity(name) && !credential.headers.iter().any(|own| own.as_str() == name)
    };
    for (key, list) in [("drop_headers", &file.drop_headers), ("pass_headers", &file.pass_headers)]
    {
        for text in list.get().map_or(&[][..], |list| &list.0) {
            if guarded(&text.value.as_str().to_ascii_lowercase()) {
                refuse(key, text, context);
            }
        }
    }
}

fn refuse(key: &str, text: &Located<TomlString>, context: &mut CompileContext) {
    let shown = text.value.shown();
    let message = format!(
        "`{shown}` says who asks, by what is known of `fronts`: {key} would give one caller's \
         response to others"
    );
    let hint = format!(
        "remove it: requests with it bypass the cache; or name it in [credential], headers = \
         [\"{shown}\"], so that it tells callers apart"
    );
    context.report.push(DiagnosticBuilder::error(text.span.clone(), message).hint(hint));
}
