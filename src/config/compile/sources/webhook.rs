//! Compiles webhooks: where they are received, and how they are signed.

use std::time::Duration;

use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlString};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file::{SignatureChoice, SignatureSection, SourceSection};
use crate::policy::webhook_signature::presets::signed_parts;
use crate::policy::webhook_signature::{SignatureForm, SignatureLayout, SignedPart, WebhookKey};
use crate::sources::WebhookSettings;

/// The most secrets of one webhook.
const MAX_SECRETS: usize = 8;

/// The longest path, in bytes.
const MAX_PATH: usize = 512;

/// How far the time of sending may be from now.
const WINDOW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));

/// The longest body, in bytes.
const BODY: (u64, u64) = (1024, 32 << 20);

pub(super) fn webhook(
    located: &Located<SourceSection>,
    context: &mut CompileContext,
) -> Option<WebhookSettings> {
    let (file, table) = (&located.value, (&located.span, &located.value.unknown));
    let window = context.period(&file.window, WINDOW.0, WINDOW.1);
    let max_body = context.size(&file.max_body, BODY.0, BODY.1);
    let report = &mut context.report;
    let path = file.path.required("path", table, "path = \"/hooks/shopify\"", report);
    let example = "signature = \"github\", the form in which the sender signs";
    let signature = file.signature.required("signature", table, example, report);
    let example = "secret = \"${WEBHOOK_SECRET}\"";
    let secrets = file.secret.required("secret", table, example, report);
    let path = path.and_then(|path| exact_path(path, context));
    let form = signature.and_then(|given| match &given.value {
        SignatureChoice::Preset(word) => Some(word.0.form()),
        SignatureChoice::Table(section) => own_form(given, section, context),
    });
    let form = form?;
    if let Some(given) = file.window.given().filter(|_| !form.has_time()) {
        let message = "`window` says nothing: in this form no time is signed";
        let builder = DiagnosticBuilder::error(given.span.clone(), message);
        context.report.push(builder.hint("remove it"));
    }
    let secrets = &secrets?.value.0;
    if secrets.is_empty() || secrets.len() > MAX_SECRETS {
        let message = format!("the webhook has {} secrets", secrets.len());
        let builder = DiagnosticBuilder::error(located.span.clone(), message);
        context.report.push(builder.allowed(format!("1 to {MAX_SECRETS}")));
        return None;
    }
    let keys: Vec<WebhookKey> =
        secrets.iter().filter_map(|secret| key(&form, secret, context)).collect();
    let keys = (keys.len() == secrets.len()).then(|| keys.into());
    let max_body = usize::try_from(max_body).unwrap_or(usize::MAX);
    Some(WebhookSettings { path: path?, keys: keys?, form, window, max_body })
}

/// SECURITY: no message repeats any of a secret.
fn key(
    form: &SignatureForm,
    text: &Located<TomlString>,
    context: &mut CompileContext,
) -> Option<WebhookKey> {
    let secret = context.secret(&text.span, text.value.as_str())?;
    let key = form.key_of(secret.expose());
    if key.is_none() {
        let message = "this is no secret of Standard Webhooks";
        let builder = DiagnosticBuilder::error(text.span.clone(), message);
        context.report.push(
            builder
                .allowed("base64, with `whsec_` before it")
                .hint("copy it from the page of the sender as it is"),
        );
    }
    key
}

/// A path as clients send it, without wildcards: only requests to exactly this path are received.
fn exact_path(text: &Located<TomlString>, context: &mut CompileContext) -> Option<Box<str>> {
    let path = text.value.as_str();
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/_-.~".contains(&b);
    let is_plain = path.len() > 1 && path.len() <= MAX_PATH && path.bytes().all(fits);
    let is_normal =
        !path.contains("//") && !path.split('/').any(|part| part == "." || part == "..");
    if path.starts_with('/') && is_plain && is_normal {
        return Some(path.into());
    }
    let what = format!("`{}` is not the path of a webhook", text.value.shown());
    let allowed = Some("/ and letters, digits, `/`, `_`, `-`, `.`, `~`, at most 512 bytes");
    let hint = "write it as \"/hooks/shopify\", without wildcards, escapes and query";
    context.report.malformed(text, "a path", what, allowed, hint);
    None
}

fn own_form(
    given: &Located<SignatureChoice>,
    section: &SignatureSection,
    context: &mut CompileContext,
) -> Option<SignatureForm> {
    let table = (&given.span, &section.unknown);
    let example = "header = \"x-signature\"";
    let header = section.header.required("header", table, example, &mut context.report);
    let header = header.and_then(|header| context.header(header));
    let timestamp = match &section.timestamp {
        Setting::Given(name) => Some(context.header(name)?),
        Setting::Bad => return None,
        Setting::Absent | Setting::Default(_) => None,
    };
    let signed = match &section.signs {
        Setting::Given(text) => signed_text(text, timestamp.is_some(), context)?,
        Setting::Bad => return None,
        Setting::Absent | Setting::Default(_) if timestamp.is_some() => {
            let message = "it is unknown how the time is signed";
            let builder = DiagnosticBuilder::error(given.span.clone(), message);
            context.report.push(builder.hint("add signs = \"{timestamp}.{body}\""));
            return None;
        }
        Setting::Absent | Setting::Default(_) => [SignedPart::Body].into(),
    };
    Some(SignatureForm {
        header: header?,
        layout: SignatureLayout::Whole(section.prefix.get()?.as_str().into()),
        encoding: section.encoding.get()?.0,
        timestamp,
        id: None,
        signed,
        has_encoded_secret: false,
    })
}

fn signed_text(
    text: &Located<TomlString>,
    has_time: bool,
    context: &mut CompileContext,
) -> Option<Box<[SignedPart]>> {
    let parts = signed_parts(text.value.as_str());
    if let Some(parts) = parts.filter(|parts| parts.contains(&SignedPart::Timestamp) == has_time) {
        return Some(parts);
    }
    let what = format!("`{}` is not what a webhook signs", text.value.shown());
    let allowed = Some("a text with {body} once, and {timestamp} once if `timestamp` is given");
    let hint = "write signs = \"{timestamp}.{body}\"";
    context.report.malformed(text, "what is signed", what, allowed, hint);
    None
}
