//! Compiles `[jwt]`: where the keys come from, and what a token must have; and the fields that come
//! from tokens.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::credential::cookie_name;
use crate::config::context::CompileContext;
use crate::config::decode::{Located, NamedTable, Setting, TomlString};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file::{self, FieldForm};
use crate::config::model::JwtSettings;
use crate::input_file::{MAX_CA_BYTES, MAX_TOKEN_BYTES};
use crate::policy::field::FieldSource;
use crate::policy::jwt::{
    Algorithm, AlgorithmFamily, KeySetError, TokenField, TokenPlace, TokenRules, VerifyKey,
    parse_jwks, parse_pem,
};
use crate::upstream::{Target, UpstreamAddress, UrlSource};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);
/// The longest difference of clocks that is no mistake.
const MAX_LEEWAY: Duration = Duration::from_mins(5);
/// RFC 7518 3.2: a secret is at least as long as the hash.
const LONG_SECRET: usize = 32;

/// The section; none where it is invalid.
pub fn jwt(
    file: &file::JwtSection,
    section: &SourceSpan,
    context: &mut CompileContext,
) -> Option<JwtSettings> {
    let algorithms = algorithms(file, section, context);
    let refresh = context.period(&file.refresh, SECOND, DAY);
    let keep = context.period(&file.keep_keys, SECOND, 30 * DAY);
    if let Some(given) = file.keep_keys.given().filter(|_| keep < refresh) {
        let message = "`keep_keys` is shorter than `refresh`, so the keys end before each fetch";
        let builder = DiagnosticBuilder::error(given.span.clone(), message);
        context.report.push(builder.hint("make it several times as long as `refresh`"));
    }
    let source = source(file, context);
    let fixed = fixed_keys(file, algorithms.as_deref().unwrap_or_default(), context);
    let text = |_: &mut CompileContext, text: &Located<TomlString>| {
        Some(Box::<str>::from(text.value.as_str()))
    };
    let issuers = context.names(&file.issuer.get()?.0, text).into();
    let audiences = context.names(&file.audience.get()?.0, text).into();
    let leeway = context.period(&file.leeway, Duration::ZERO, MAX_LEEWAY);
    let capacity = context.count(&file.tokens, 1, 1_000_000);
    let algorithms = algorithms?;
    key_kinds(file, section, &algorithms, context);
    Some(JwtSettings {
        rules: TokenRules { algorithms, issuers, audiences, leeway, capacity },
        fixed: fixed?,
        source,
        refresh,
        keep,
    })
}

fn algorithms(
    file: &file::JwtSection,
    section: &SourceSpan,
    context: &mut CompileContext,
) -> Option<Box<[Algorithm]>> {
    let example = "the algorithms that the issuer signs by: algorithms = [\"RS256\"]";
    let table = (section, &file.unknown);
    let given = file.algorithms.required("algorithms", table, example, &mut context.report)?;
    let all: Box<[Algorithm]> = given.value.0.iter().map(|word| word.value.0).collect();
    let is_hmac = |algorithm: &Algorithm| algorithm.family() == AlgorithmFamily::Hmac;
    let builder = |message| DiagnosticBuilder::error(given.span.clone(), message);
    if all.is_empty() {
        let builder = builder("no algorithm is named, so no token would be verified");
        context.report.push(builder.hint("write those that the issuer signs by: [\"RS256\"]"));
    } else if all.iter().any(is_hmac) && !all.iter().all(is_hmac) {
        // SECURITY: with both, whoever knows the public key could sign with it as the secret.
        let builder = builder("HMAC and public-key algorithms are mixed");
        context.report.push(builder.hint(
            "name the one kind that the issuer signs by: HS256, HS384, HS512 with `secret`, or \
             the others with public keys",
        ));
    } else {
        return Some(all);
    }
    None
}

/// Reports sources of keys that do not fit the algorithms, and that there is none.
fn key_kinds(
    file: &file::JwtSection,
    section: &SourceSpan,
    algorithms: &[Algorithm],
    context: &mut CompileContext,
) {
    let by_secret = algorithms.iter().any(|algorithm| algorithm.family() == AlgorithmFamily::Hmac);
    let public = [&file.jwks_url, &file.jwks_file].map(|slot| slot.given().map(|text| &text.span));
    let pem = file.public_key_file.given().filter(|list| !list.value.0.is_empty());
    let mut public = public.into_iter().flatten().chain(pem.map(|list| &list.span)).peekable();
    let secret = file.secret.given().map(|text| &text.span);
    let is_bad = [&file.jwks_url, &file.jwks_file, &file.secret]
        .into_iter()
        .any(|slot| matches!(slot, Setting::Bad))
        || matches!(file.public_key_file, Setting::Bad);
    if public.peek().is_none() && secret.is_none() {
        let is_lost = is_bad || context.report.may_have_lost_keys(section);
        if !is_lost && file.unknown.0.is_empty() {
            let builder = DiagnosticBuilder::error(section.clone(), "[jwt] names no keys");
            context.report.push(
                builder
                    .allowed("jwks_url, jwks_file, public_key_file, secret")
                    .hint("add jwks_url = \"https://…\", where the issuer publishes its keys"),
            );
        }
        return;
    }
    if let Some(at) = secret.filter(|_| !by_secret) {
        let message = "`secret` is for HMAC, and `algorithms` names those of public keys";
        let builder = DiagnosticBuilder::error(at.clone(), message);
        context.report.push(builder.hint("remove one of the two; they cannot be mixed"));
    }
    for at in public.filter(|_| by_secret) {
        let message = "these are public keys, and `algorithms` names HMAC";
        let builder = DiagnosticBuilder::error(at.clone(), message);
        context.report.push(
            builder
                .hint("remove one of the two; they cannot be mixed: HMAC has its key in `secret`"),
        );
    }
    if secret.is_none() && by_secret && !is_bad {
        let at = file.algorithms.given().map_or_else(|| section.clone(), |all| all.span.clone());
        let builder = DiagnosticBuilder::error(at, "HMAC needs a secret");
        context.report.push(builder.hint("add secret = \"${JWT_SECRET}\""));
    }
}

/// The keys that are in files, or in the file itself; none if one is invalid.
fn fixed_keys(
    file: &file::JwtSection,
    algorithms: &[Algorithm],
    context: &mut CompileContext,
) -> Option<Vec<VerifyKey>> {
    let (mut keys, mut is_whole) = (Vec::new(), true);
    let mut add = |read: Result<Vec<VerifyKey>, KeySetError>,
                   text: &Located<TomlString>,
                   context: &mut CompileContext| {
        match read {
            Ok(read) => {
                keys.extend(read);
                true
            }
            Err(error) => {
                let what = format!("`{}` cannot be used: {error}", text.value.shown());
                let hint = "name a file with the issuer's public keys";
                context.report.malformed(text, "a file with keys", what, None, hint);
                false
            }
        }
    };
    if let Some(text) = file.jwks_file.given() {
        let bytes = context.file(&file.jwks_file, MAX_CA_BYTES).and_then(|(_, bytes)| bytes);
        is_whole &= bytes.is_some_and(|bytes| {
            // Without algorithms, which has been reported, no key fits.
            algorithms.is_empty() || add(parse_jwks(&bytes, algorithms), text, context)
        });
    }
    for text in file.public_key_file.given().map_or(&[][..], |list| &list.value.0) {
        let slot = Setting::Given(text.clone());
        let bytes = context.file(&slot, MAX_TOKEN_BYTES).and_then(|(_, bytes)| bytes);
        is_whole &= bytes.is_some_and(|bytes| {
            let read = parse_pem(&bytes).and_then(|keys| {
                let fits = |key: &VerifyKey| algorithms.iter().any(|one| key.is_for(*one));
                let is_fit = algorithms.is_empty() || keys.iter().any(fits);
                if is_fit { Ok(keys) } else { Err(KeySetError::NoneUsable(keys.len())) }
            });
            add(read, text, context)
        });
    }
    if let Some(text) = file.secret.given() {
        match context.secret(&text.span, text.value.as_str()) {
            Some(secret) => keys.push(VerifyKey::from_secret(secret.expose().as_bytes())),
            None => is_whole = false,
        }
        let length = text.value.as_str().len();
        if is_whole && length < LONG_SECRET {
            let message = format!("this secret is shorter than {LONG_SECRET} characters");
            let builder = DiagnosticBuilder::warning(text.span.clone(), message);
            context.report.push(builder.hint(
                "who has a token can guess a short one offline (RFC 7518 3.2): let the issuer use \
                 a longer one",
            ));
        }
    }
    is_whole.then_some(keys)
}

/// Where keys are fetched.
fn source(file: &file::JwtSection, context: &mut CompileContext) -> Option<UrlSource> {
    let ca_file = context.file(&file.ca_file, MAX_CA_BYTES).map(|(path, _)| path);
    let source = file.jwks_url.given().and_then(|text| {
        let url = jwks_url(text, context)?;
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let address = UpstreamAddress::Tcp {
            tls: url.scheme() == "https",
            host: host.trim_start_matches('[').trim_end_matches(']').into(),
            port,
        };
        let path = url[url::Position::BeforePath..].into();
        let target = Target { address, authority: authority.into() };
        Some(UrlSource { target, path, ca_file: ca_file.clone() })
    });
    let is_tls = source.as_ref().is_some_and(|source| {
        matches!(source.target.address, UpstreamAddress::Tcp { tls: true, .. })
    });
    let is_valid = source.is_some() || matches!(file.jwks_url, Setting::Absent);
    if let Some(given) = file.ca_file.given().filter(|_| !is_tls && is_valid) {
        let message = "`ca_file` has no effect, because no keys are fetched by https";
        let builder = DiagnosticBuilder::warning(given.span.clone(), message);
        context.report.push(builder.hint("remove it, or write jwks_url with https://"));
    }
    source
}

/// The URL of the keys. Its text may hold a password, so no message repeats it.
fn jwks_url(text: &Located<TomlString>, context: &mut CompileContext) -> Option<Url> {
    const FORM: &str = "https://HOST[:PORT]/PATH";
    let lower = text.value.as_str().to_ascii_lowercase();
    let (what, hint) = match Url::parse(text.value.as_str()) {
        _ if !lower.starts_with("https://") && !lower.starts_with("http://") => {
            ("the URL of the keys is neither https nor http".to_owned(), "put https:// before it")
        }
        Err(error) => (format!("this is not a URL: {error}"), "copy `jwks_uri` of the issuer"),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => (
            "the URL of the keys has a user or password".to_owned(),
            "remove it: public keys need none",
        ),
        Ok(url) if url.port() == Some(0) => {
            ("the URL of the keys has port 0".to_owned(), "write the port of the issuer")
        }
        Ok(mut url) => {
            url.set_fragment(None);
            if url.scheme() == "http" && !is_near(&url) {
                let message = "the keys are fetched by plain http: whoever is on the way can \
                               replace them, and sign any token";
                let builder = DiagnosticBuilder::warning(text.span.clone(), message);
                context.report.push(builder.hint("write https://"));
            }
            return Some(url);
        }
    };
    context.report.malformed(text, "the URL of a JWKS", what, Some(FORM), hint);
    None
}

fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The source of a field with this pointer as `jwt`, and perhaps `cookie` beside it.
pub(super) fn field_source(
    pointer: &str,
    cookie: &Setting<TomlString>,
    context: &mut CompileContext,
) -> Option<FieldSource> {
    let pointer: Arc<str> = pointer.into();
    let place = match cookie {
        Setting::Absent => TokenPlace::Authorization,
        slot => TokenPlace::Cookie(cookie_name(context, slot.given()?)?.into()),
    };
    Some(FieldSource::Jwt(TokenField { pointer, place }))
}

/// Reports fields that come from tokens where nothing says how tokens are verified.
pub fn check_fields(
    section: &Setting<file::JwtSection>,
    fields: Option<&NamedTable<FieldForm>>,
    context: &mut CompileContext,
) {
    if !matches!(section, Setting::Absent) || context.report.has_broken_header() {
        return;
    }
    let forms = fields.map_or(&[][..], |fields| &fields.0);
    for claim in forms.iter().filter_map(|(_, form)| form.given()?.value.jwt.given()) {
        let message = "this field comes from a token, and there is no [jwt] to verify it";
        let builder = DiagnosticBuilder::error(claim.span.clone(), message);
        context.report.push(builder.hint(
            "add [jwt] with jwks_url (or jwks_file, public_key_file, secret) and algorithms",
        ));
    }
}
