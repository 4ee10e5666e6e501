//! Compiles `compress` of `[redis]`.

use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file::{CompressForm, CompressSection};
use crate::config::model::ConfigLimits;
use crate::redis::BodyCompression;
use crate::units::show_size;

/// What `compress = "zstd"` says.
const USUAL: BodyCompression = BodyCompression { level: 3, min_size: 1 << 10 };

/// The highest level of the method that needs no more memory to read than a lower one.
const MAX_LEVEL: u64 = 19;

/// Where `min_size` may be: a frame alone takes some bytes, and no body is longer than the rest.
const MIN_SIZES: (u64, u64) = (64, 16 << 30);

/// `compress`. None where bodies are stored as they are.
pub(super) fn compress(
    slot: &Setting<CompressForm>,
    context: &mut CompileContext,
) -> Option<BodyCompression> {
    match slot.get()? {
        CompressForm::Method(word) => word.0.then_some(USUAL),
        CompressForm::Table(section) => {
            let level = context.count(&section.level, 1, MAX_LEVEL);
            let min_size = context.size(&section.min_size, MIN_SIZES.0, MIN_SIZES.1);
            let level = u8::try_from(level).unwrap_or(u8::MAX);
            let is_on = section.method.get()?.0;
            if !is_on {
                without_effect(section, context);
            }
            is_on.then_some(BodyCompression { level, min_size })
        }
    }
}

fn without_effect(section: &CompressSection, context: &mut CompileContext) {
    let level = section.level.given().map(|given| ("level", &given.span));
    let min_size = section.min_size.given().map(|given| ("min_size", &given.span));
    for (key, span) in level.into_iter().chain(min_size) {
        let message = format!("`{key}` has no effect with method = \"off\"");
        let builder = DiagnosticBuilder::warning(span.clone(), message);
        context.report.push(builder.hint("write compress = \"off\", or method = \"zstd\""));
    }
}

/// Warns about what costs more than it brings.
pub(super) fn lint(
    slot: &Setting<CompressForm>,
    limits: &ConfigLimits,
    context: &mut CompileContext,
) {
    const THOROUGH: u8 = 9;
    let Some(Located { value: CompressForm::Table(section), .. }) = slot.given() else { return };
    if !section.method.get().is_some_and(|word| word.0) {
        return;
    }
    if let Some(given) = section.level.given()
        && given.value.0 > u64::from(THOROUGH)
        && given.value.0 <= MAX_LEVEL
    {
        let message = format!(
            "level {} takes many times as long as level 3 for each body that is stored, and saves \
             a few percent more",
            given.value.0
        );
        let builder = DiagnosticBuilder::warning(given.span.clone(), message);
        context.report.push(
            builder.hint("write level = 3, or at most 9 (docs/src/performance.md#bodies-in-redis)"),
        );
    }
    if let Some(given) = section.min_size.given()
        && given.value.0 > limits.object
    {
        let message = format!(
            "nothing is compressed: no body of this size is stored (`object` in [limits] is {})",
            show_size(limits.object)
        );
        let builder = DiagnosticBuilder::warning(given.span.clone(), message);
        context.report.push(builder.hint("write min_size = \"1KiB\""));
    }
}
