//! Lint of the snapshot in `[memory]`: keys without an effect, and a folder that cannot be written
//! to.

use std::path::Path;

use rustix::fs::{Access, access};

use super::super::compile::values::unwritable_name;
use super::super::context::CompileContext;
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::view::{CompiledParts, LintFile};

/// Checks the snapshot.
pub fn check(whole: &LintFile<'_>, parts: &CompiledParts<'_>, context: &mut CompileContext) {
    let Some(memory) = whole.file.memory.given().map(|given| &given.value) else { return };
    let limits = [
        ("snapshot_size", memory.snapshot_size.given().map(|given| &given.span)),
        ("snapshot_time", memory.snapshot_time.given().map(|given| &given.span)),
    ];
    let Some(given) = memory.snapshot.given() else {
        for (name, span) in limits.into_iter().filter_map(|(name, span)| Some((name, span?))) {
            let message = format!("`{name}` has no effect without `snapshot`");
            context.report.push(
                DiagnosticBuilder::warning(span.clone(), message)
                    .hint("add snapshot = \"/var/lib/sidecache/snapshot\", or remove this"),
            );
        }
        return;
    };
    if memory.size.get().is_some_and(|size| size.0 == 0) {
        let message = "the memory tier is off, so there is nothing to take a snapshot of";
        context.report.push(
            DiagnosticBuilder::warning(given.span.clone(), message)
                .hint("give [memory] a size, or remove `snapshot`"),
        );
    }
    let Some(path) = parts.snapshot.map(|settings| &settings.path) else { return };
    if let Some(flaw) = unwritable_name(path) {
        let message = format!("`{}` {flaw}, so no snapshot is left", given.value.shown());
        context.report.push(DiagnosticBuilder::warning(given.span.clone(), message).hint(
            "create the folder, and name a file in it; paths are relative to the folder of this \
             file",
        ));
    } else if !path.parent().is_some_and(is_writable) {
        let message = "this user cannot write to the folder, so no snapshot is left";
        context.report.push(DiagnosticBuilder::warning(given.span.clone(), message).hint(
            "name a folder of the sidecar's user, such as \"${STATE_DIRECTORY}/snapshot\" under \
             systemd; if another user runs the sidecar, accept this with `# check: ok`",
        ));
    }
}

fn is_writable(folder: &Path) -> bool {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}
