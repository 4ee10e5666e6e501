//! JSON pointers in the file.

use crate::config::context::CompileContext;
use crate::config::decode::{Located, TomlString};

/// Whether this is a JSON pointer (RFC 6901) to something in a document.
pub(super) fn is_pointer(text: &str) -> bool {
    text.len() > 1 && text.starts_with('/') && has_valid_escapes(text)
}

fn has_valid_escapes(text: &str) -> bool {
    text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}

/// A JSON pointer (RFC 6901).
pub(super) fn pointer(
    text: &Located<TomlString>,
    context: &mut CompileContext,
) -> Option<Box<str>> {
    let value = text.value.as_str();
    let escapes = has_valid_escapes(value);
    if is_pointer(value) {
        return Some(value.into());
    }
    let what = format!("`{}` is not a JSON pointer", text.value.shown());
    let allowed = Some(
        "a path such as \"/campaign/id\" or \"/campaigns/*/id\"; write `~` as ~0, and `/` in a \
         name as ~1",
    );
    let hint = if escapes && !value.is_empty() && !value.starts_with('/') {
        "start it with `/`, and separate its parts with `/`"
    } else {
        "write it as \"/campaign/id\""
    };
    context.report.malformed(text, "a JSON pointer", what, allowed, hint);
    None
}
