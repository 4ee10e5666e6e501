//! JSON pointers in the file.

use crate::config::context::CompileContext;
use crate::config::decode::{Located, TomlString};

/// A JSON pointer (RFC 6901).
pub(super) fn pointer(
    text: &Located<TomlString>,
    context: &mut CompileContext,
) -> Option<Box<str>> {
    let value = text.value.as_str();
    let escapes = value.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if value.len() > 1 && value.starts_with('/') && escapes {
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
