//! Compiles `[[notify]]`: who is told of purges, and how.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use url::Url;

use super::sources::{source_name, url_source};
use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlList, TomlString};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file::NotifySection;
use crate::config::keywords::NotifyWordKind;
use crate::input_file::MAX_CA_BYTES;
use crate::notify::{MAX_NOTIFY, NotifyKind, NotifySettings};
use crate::policy::surrogate::SurrogateHeader;
use crate::policy::webhook_signature::WebhookKey;
use crate::policy::webhook_signature::presets::SignaturePreset;
use crate::secret::Secret;
use crate::upstream::UrlSource;

/// How long purges are gathered, at most.
const MAX_GATHER: Duration = Duration::from_secs(10);

/// The length of the header with the tags. 16000: what CDNs read, and what proxies pass.
const HEADER_SIZE: (u64, u64) = (256, 16_000);

/// The longest name of a zone or a service.
const MAX_ID: usize = 64;

/// Compiles the receivers. Those with an error are left out, but all their keys are checked.
pub fn notify(
    list: Option<&TomlList<NotifySection>>,
    context: &mut CompileContext,
) -> Vec<NotifySettings> {
    let list = list.map_or(&[][..], |list| &list.0);
    if let Some(last) = list.get(MAX_NOTIFY) {
        let message = format!("the file has {} notifications", list.len());
        let builder = DiagnosticBuilder::error(last.span.clone(), message);
        let builder = builder.allowed(format!("at most {MAX_NOTIFY}"));
        context.report.push(builder.hint("let one receiver tell the others"));
    }
    let mut names: HashSet<Arc<str>> = HashSet::new();
    let mut compiled = Vec::new();
    for located in list {
        if let Some(settings) = receiver(located, &names, context) {
            names.insert(Arc::clone(&settings.name));
            compiled.push(settings);
        }
    }
    compiled
}

fn receiver(
    located: &Located<NotifySection>,
    names: &HashSet<Arc<str>>,
    context: &mut CompileContext,
) -> Option<NotifySettings> {
    let (file, table) = (&located.value, (&located.span, &located.value.unknown));
    let word = file.kind.required("kind", table, "kind = \"cloudflare\"", &mut context.report);
    let gather = context.period(&file.gather, Duration::ZERO, MAX_GATHER);
    let size = context.size(&file.header_size, HEADER_SIZE.0, HEADER_SIZE.1);
    let word = word.map(|word| word.value.0);
    let what = ("notification", word.map(NotifyWordKind::as_str));
    let name = source_name(&file.name, what, names, context);
    let word = word?;
    foreign_keys(word, file, context);
    let header = header(word, file, size, context)?;
    let url = address(word, located, context);
    let kind = kind(word, located, context);
    let at_start = *file.at_start.get()?;
    Some(NotifySettings { name: name?, kind: kind?, url: url?, gather, at_start, header })
}

/// Reports keys that say nothing for a receiver of this kind.
fn foreign_keys(word: NotifyWordKind, file: &NotifySection, context: &mut CompileContext) {
    use NotifyWordKind::{Cloudflare, Fastly, Webhook};

    fn span<T>(slot: &Setting<T>) -> Option<&SourceSpan> {
        slot.given().map(|given| &given.span)
    }
    let keys: [(&str, Option<&SourceSpan>, &[NotifyWordKind]); 5] = [
        ("zone", span(&file.zone), &[Cloudflare]),
        ("service", span(&file.service), &[Fastly]),
        ("token", span(&file.token), &[Cloudflare, Fastly]),
        ("secret", span(&file.secret), &[Webhook]),
        ("soft", span(&file.soft), &[Fastly]),
    ];
    for (key, span, kinds) in keys {
        let Some(span) = span.filter(|_| !kinds.contains(&word)) else { continue };
        let message = format!("`{key}` says nothing for kind = \"{}\"", word.as_str());
        let kinds: Vec<String> =
            kinds.iter().map(|kind| format!("\"{}\"", kind.as_str())).collect();
        let builder = DiagnosticBuilder::error(span.clone(), message);
        context.report.push(builder.hint(format!("remove it; it is for {}", kinds.join(", "))));
    }
}

fn kind(
    word: NotifyWordKind,
    located: &Located<NotifySection>,
    context: &mut CompileContext,
) -> Option<NotifyKind> {
    let (file, table) = (&located.value, (&located.span, &located.value.unknown));
    match word {
        NotifyWordKind::Webhook => {
            let example = "secret = \"${WEBHOOK_SECRET}\", made by: echo whsec_$(openssl rand \
                           -base64 32)";
            let given = file.secret.required("secret", table, example, &mut context.report)?;
            let key = key(given, context)?;
            Some(NotifyKind::Webhook { key })
        }
        NotifyWordKind::Cloudflare => {
            let example = "zone = \"${CLOUDFLARE_ZONE}\"";
            let zone = file.zone.required("zone", table, example, &mut context.report);
            let zone = zone.and_then(|zone| id(zone, context));
            let token = token(located, context);
            Some(NotifyKind::Cloudflare { zone: zone?, token: token? })
        }
        NotifyWordKind::Fastly => {
            let example = "service = \"${FASTLY_SERVICE}\"";
            let service = file.service.required("service", table, example, &mut context.report);
            let service = service.and_then(|service| id(service, context));
            let token = token(located, context);
            let soft = *file.soft.get()?;
            Some(NotifyKind::Fastly { service: service?, token: token?, soft })
        }
    }
}

fn token(located: &Located<NotifySection>, context: &mut CompileContext) -> Option<Secret> {
    let table = (&located.span, &located.value.unknown);
    let given = located.value.token.required(
        "token",
        table,
        "token = \"${CDN_TOKEN}\"",
        &mut context.report,
    )?;
    context.secret(&given.span, given.value.as_str())
}

/// SECURITY: no message repeats any of a secret.
fn key(text: &Located<TomlString>, context: &mut CompileContext) -> Option<WebhookKey> {
    let secret = context.secret(&text.span, text.value.as_str())?;
    let key = SignaturePreset::Standard.form().key_of(secret.expose());
    if key.is_none() {
        let message = "this is no secret of Standard Webhooks";
        let builder = DiagnosticBuilder::error(text.span.clone(), message);
        context.report.push(
            builder
                .allowed("base64, with `whsec_` before it")
                .hint("make one with `echo whsec_$(openssl rand -base64 32)`"),
        );
    }
    key
}

fn id(text: &Located<TomlString>, context: &mut CompileContext) -> Option<Box<str>> {
    let value = text.value.as_str();
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if (1..=MAX_ID).contains(&value.len()) && value.bytes().all(fits) {
        return Some(value.into());
    }
    let what = format!("`{}` is not an id", text.value.shown());
    let allowed = Some("1 to 64 letters, digits, `_` and `-`");
    context.report.malformed(text, "an id", what, allowed, "copy it from the page of the CDN");
    None
}

/// Where it is told.
fn address(
    word: NotifyWordKind,
    located: &Located<NotifySection>,
    context: &mut CompileContext,
) -> Option<UrlSource> {
    let (file, table) = (&located.value, (&located.span, &located.value.unknown));
    let ca_file = context.file(&file.ca_file, MAX_CA_BYTES).map(|(path, _)| path);
    let base = match word {
        NotifyWordKind::Webhook => {
            let example = "url = \"https://cdn.example.com/hooks/purge\"";
            file.url.required("url", table, example, &mut context.report)?;
            None
        }
        NotifyWordKind::Cloudflare => Some("https://api.cloudflare.com/client/v4"),
        NotifyWordKind::Fastly => Some("https://api.fastly.com"),
    };
    let Some(given) = file.url.given() else {
        return url_source(&Url::parse(base?).ok()?, ca_file);
    };
    let url = super::sources::web_url(given, context)?;
    let is_near = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() == "http" && !is_near && word != NotifyWordKind::Webhook {
        let message = "the token may be read on the way";
        let builder = DiagnosticBuilder::warning(given.span.clone(), message);
        context.report.push(builder.hint("write https://"));
    }
    url_source(&url, ca_file)
}

/// The header with the tags; the error is reported.
#[allow(clippy::option_option, reason = "none is a choice, and an error is another thing")]
fn header(
    word: NotifyWordKind,
    file: &NotifySection,
    size: u64,
    context: &mut CompileContext,
) -> Option<Option<SurrogateHeader>> {
    let name = match &file.header {
        Setting::Given(text) => Some(context.header(text)?),
        Setting::Bad => return None,
        Setting::Absent | Setting::Default(_) => match word {
            NotifyWordKind::Cloudflare => Some(HeaderName::from_static("cache-tag")),
            NotifyWordKind::Fastly => Some(HeaderName::from_static("surrogate-key")),
            NotifyWordKind::Webhook => None,
        },
    };
    let max_bytes = usize::try_from(size).unwrap_or(usize::MAX);
    Some(name.map(|name| {
        let is_spaced = ["surrogate-key", "xkey"].contains(&name.as_str());
        SurrogateHeader { separator: if is_spaced { ' ' } else { ',' }, name, max_bytes }
    }))
}
