//! Compiles `fronts`, and keeps the rules of routes from dropping or passing what a front says of
//! the caller.

use crate::config::compile::headers;
use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlList, TomlString};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file;
use crate::config::keywords::FrontWord;
use crate::policy::credential::CredentialRule;
use crate::policy::fronts::{self, FrontClass, Fronts};

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
    let identity: Vec<&str> = fronts.of_class(FrontClass::Identity).collect();
    let is_credential = |name: &str| credential.headers.iter().any(|own| own.as_str() == name);
    let guarded = |text: &str| {
        let glob = headers::glob(text);
        // SECURITY: two patterns may meet in a name that neither of them has.
        identity.iter().any(|known| fronts::meets(known, &glob))
            && !(glob.is_literal() && is_credential(glob.as_str()))
    };
    for (key, list) in [("drop_headers", &file.drop_headers), ("pass_headers", &file.pass_headers)]
    {
        for text in list.get().map_or(&[][..], |list| &list.0) {
            if guarded(text.value.as_str()) {
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
