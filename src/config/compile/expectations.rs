//! Tests `[[expect]]`: what the rules of the file make of a request.
//!
//! Runs once the whole file is known to be right. Nothing is sent or stored, and no token is
//! verified.

use std::sync::Arc;

use http::header::CONTENT_TYPE;

use crate::clock::Wall;
use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlString, ValueTable};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file::{ConfigFile, ExpectSection, OtherRequestSection};
use crate::config::model::Config;
use crate::outcome::Reason;
use crate::policy::body_fields::BodyFields;
use crate::policy::client_address::ClientAddressRule;
use crate::policy::explain::{ExplainRequest, ParsedRequest};
use crate::policy::identity::{IdentityAnswer, RequestIdentity};
use crate::policy::key::KeyHash;
use crate::policy::plan::{Lookup, Mutation, Plan, PolicyRules, RequestView};
use crate::policy::purge_request::PurgeRequestRule;
use crate::policy::route::Route;
use crate::policy::tag::Tag;
use crate::secret::Hasher;
use crate::semantics::forward::Upgrades;

/// The most expectations of a file: each costs a reload a few microseconds.
const MAX_EXPECTATIONS: usize = 1000;

/// What stands for no route and for no reason.
const NONE: &str = "none";

/// Tests the expectations of a file, and reports those that its rules do not meet.
pub fn check(file: &ConfigFile, config: &mut Config, context: &mut CompileContext) {
    let expected = file.expect.get().map_or(&[][..], |list| &list.0);
    let Some(last) = expected.last() else { return };
    if expected.len() > MAX_EXPECTATIONS {
        let message = format!("the file has {} expectations", expected.len());
        let builder = DiagnosticBuilder::error(last.span.clone(), message);
        let builder = builder.allowed(format!("at most {MAX_EXPECTATIONS}"));
        return context.report.push(builder.hint("remove some of them"));
    }
    let rules = borrow_rules(config);
    for located in expected {
        Expectation { file: &located.value, span: &located.span, rules: &rules }.check(context);
    }
    config.routes = rules.routes;
    config.purges = rules.purges;
}

/// The rules of the file. Its routes and purge rules are taken out for it.
fn borrow_rules(config: &mut Config) -> PolicyRules {
    let trusted = config.server.trusted_proxies.networks();
    PolicyRules {
        client_address: ClientAddressRule::new(&config.routes, &config.purges, &trusted),
        apps: config.app_rules(),
        routes: std::mem::take(&mut config.routes),
        purges: std::mem::take(&mut config.purges),
        credential: Arc::clone(&config.credential),
        hasher: Hasher::default(),
        max_key: usize::try_from(config.limits.key).unwrap_or(usize::MAX),
        upgrades: Upgrades::new(config.upstream.upgrades.iter().cloned()),
        documents: Arc::default(),
        tokens: None,
        identities: None,
        purge_requests: config.purge_requests.clone(),
        webhooks: config.webhook_paths(),
        max_read_body: config.limits.read_body,
    }
}

struct Expectation<'a> {
    file: &'a ExpectSection,
    span: &'a SourceSpan,
    rules: &'a PolicyRules,
}

/// SECURITY: what the rules make of a request may hold any part of the request and of the file, and
/// whoever may send a text to be checked chooses both. Where the value of a variable is anywhere in
/// the file, nothing of what they make is shown.
const HIDDEN: &str = "another value (not shown, since the file has values of variables)";

/// What the rules make of a request.
enum Found<'a> {
    Lookup(Box<Lookup<'a>>),
    Mutation(Box<Mutation>),
    /// The cache takes no part, on this route, for this reason.
    Pass(Option<&'a Route>, String),
}

impl<'a> Found<'a> {
    fn new(rules: &'a PolicyRules, request: &'a ParsedRequest, body: Option<&str>) -> Self {
        let view = request.view(rules, Wall::default());
        match rules.plan(&view) {
            Plan::Lookup(lookup) => Self::Lookup(lookup),
            Plan::Pass(route, outcome) => {
                let reason = outcome.detail().map(|detail| detail.to_string());
                Self::Pass(route.map(|route| &**route), reason.unwrap_or_default())
            }
            Plan::Refuse(route, header) => {
                let reason = format!("bad request {header}");
                Self::Pass(route.map(|route| &**route), reason)
            }
            Plan::Identify(route) => {
                Self::Pass(Some(route), Reason::IdentityUnknown.as_str().into())
            }
            // The body is given.
            Plan::ReadBody(route) => Self::Pass(Some(route), Reason::RequestBody.as_str().into()),
            Plan::Mutate(method) => {
                let fields = body.and_then(|body| body_fields(&view, body));
                match rules.mutation(&view, &method, fields.as_ref()) {
                    Ok(mutation) => Self::Mutation(Box::new(mutation)),
                    Err(header) => Self::Pass(None, format!("bad request {header}")),
                }
            }
        }
    }

    fn route(&self) -> Option<&Route> {
        match self {
            Self::Lookup(lookup) => Some(lookup.route),
            Self::Pass(route, _) => *route,
            Self::Mutation(_) => None,
        }
    }

    /// The lookup, or why the request has no entry.
    fn entry(&self) -> Result<&Lookup<'a>, String> {
        match self {
            Self::Lookup(lookup) => match lookup.unknown.first() {
                Some(header) => Err(format!("no entry (unkeyed header {header})")),
                None => Ok(lookup),
            },
            Self::Mutation(_) => Err("no entry, but a write".to_owned()),
            Self::Pass(_, reason) => Err(format!("no entry ({reason})")),
        }
    }

    fn key(&self) -> Result<KeyHash, String> {
        self.entry().map(|lookup| lookup.key.hash())
    }
}

fn body_fields(view: &RequestView<'_>, body: &str) -> Option<BodyFields> {
    BodyFields::parse(view.headers.get(CONTENT_TYPE)?.as_bytes(), body.as_bytes())
}

impl Expectation<'_> {
    fn check(&self, context: &mut CompileContext) {
        let place = (self.span, &self.file.unknown);
        let example = "request = \"GET /…\"";
        let report = &mut context.report;
        let Some(text) = self.file.request.required("request", place, example, report) else {
            return;
        };
        let Some(request) = self.request(text, None, context) else { return };
        if self.rules.purge_requests.is_some() && PurgeRequestRule::is_for(request.method()) {
            let message = format!("{} is answered by the sidecar itself", request.method());
            let builder = DiagnosticBuilder::error(text.span.clone(), message);
            return context.report.push(builder.hint(
                "remove this expectation; `sidecache explain PURGE /path` shows what it purges",
            ));
        }
        let body = self.file.body.get().map(TomlString::as_str);
        let found = Found::new(self.rules, &request, body);
        let counted = self.check_route(&found, context)
            + self.check_entry(&found, context)
            + self.check_purges(&found, context)
            + self.check_others(text, &found, context);
        if counted == 0 {
            let builder = DiagnosticBuilder::error(self.span.clone(), "this expects nothing");
            context.report.push(builder.hint(
                "write route, scope, key, tags, purges, reason, same_entry_as or differs_from",
            ));
        }
    }

    /// The request as the rules read it.
    fn request(
        &self,
        text: &Located<TomlString>,
        other: Option<&OtherRequestSection>,
        context: &mut CompileContext,
    ) -> Option<ParsedRequest> {
        let headers = other.and_then(|other| other.headers.get()).or(self.file.headers.get());
        let cookies = other.and_then(|other| other.cookies.get()).or(self.file.cookies.get());
        let pairs = |table: Option<&ValueTable>| -> Vec<(String, String)> {
            // Of a list, each member is a header or a cookie of its own.
            let pairs = table.map_or(&[][..], |table| &table.0).iter();
            let texts =
                pairs.flat_map(|(name, form)| form.value.0.iter().map(move |text| (name, text)));
            texts.map(|(name, text)| (name.value.clone(), text.value.as_str().into())).collect()
        };
        let mut headers = pairs(headers);
        let cookies: Vec<String> =
            pairs(cookies).iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            headers.push(("cookie".to_owned(), cookies.join("; ")));
        }
        let has_type = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !has_type && self.file.body.get().is_some() {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        let (method, target) = text.value.as_str().split_once(' ').unwrap_or_default();
        if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let builder = DiagnosticBuilder::error(
                text.span.clone(),
                "a method is compared with its case, and has small letters here",
            );
            context.report.push(builder.hint("write it as \"GET /api/v1/campaigns?page=2\""));
            return None;
        }
        let request = ExplainRequest {
            method: method.to_owned(),
            target: target.trim().to_owned(),
            headers,
            data: self.file.body.get().map(|body| body.as_str().to_owned()),
            trusted: false,
        };
        let said = other.and_then(|other| other.identity.get()).or(self.file.identity.get());
        let said = said.map(|said| pairs(Some(said)));
        let parsed = request.read().map(|read| match said {
            Some(said) => {
                let texts = said.iter().map(|(pointer, text)| (pointer.as_str(), text.as_str()));
                let answer = Arc::new(IdentityAnswer::from_texts(texts));
                read.with_identity(RequestIdentity::Known(answer))
            }
            None => read,
        });
        parsed
            .map_err(|why| {
                let builder = DiagnosticBuilder::error(text.span.clone(), why);
                context.report.push(builder.hint("write it as \"GET /api/v1/campaigns?page=2\""));
            })
            .ok()
    }

    fn fail(span: &SourceSpan, expected: &str, got: &str, context: &mut CompileContext) {
        let got = if context.report.has_variables() { HIDDEN } else { got };
        let message = format!("expected {expected}, got {got}");
        let builder = DiagnosticBuilder::error(span.clone(), message);
        let hint = "correct the rules, or the expectation; `sidecache explain` shows each step";
        context.report.push(builder.hint(hint));
    }

    /// Tests route, scope and reason. Returns how many there are.
    fn check_route(&self, found: &Found<'_>, context: &mut CompileContext) -> usize {
        let route = found.route();
        let mut counted = 0;
        if let Some(given) = self.file.route.given() {
            counted += 1;
            let (expected, got) = (given.value.as_str(), route.map_or(NONE, Route::name));
            if expected != got {
                let got = format!("`{got}`");
                let expected = given.value.shown();
                Self::fail(&given.span, &format!("the route `{expected}`"), &got, context);
            }
        }
        if let Some(given) = self.file.scope.given() {
            counted += 1;
            let (expected, got) = (given.value.0, route.map(|route| route.spec.scope));
            if got != Some(expected) {
                let got = got.map_or("no route", |scope| scope.as_str());
                let expected = format!("scope {}", expected.as_str());
                Self::fail(&given.span, &expected, got, context);
            }
        }
        if let Some(given) = self.file.reason.given() {
            counted += 1;
            let got = match found {
                Found::Pass(_, reason) => reason.clone(),
                Found::Mutation(_) => "method".to_owned(),
                Found::Lookup(lookup) => match lookup.unknown.first() {
                    Some(header) => format!("unkeyed header {header}"),
                    None => NONE.to_owned(),
                },
            };
            if given.value.as_str() != got {
                let expected = format!("the reason `{}`", given.value.shown());
                Self::fail(&given.span, &expected, &format!("`{got}`"), context);
            }
        }
        counted
    }

    /// Tests the fields of the key, and the tags of the entry. Returns how many lists there are.
    fn check_entry(&self, found: &Found<'_>, context: &mut CompileContext) -> usize {
        let mut counted = 0;
        if let Some(given) = self.file.key.given() {
            counted += 1;
            match found.entry() {
                Err(why) => Self::fail(&given.span, "a key", &why, context),
                Ok(lookup) => {
                    let fields = lookup.shown_fields();
                    for (name, value) in &given.value.0 {
                        let field = fields.iter().find(|(field, _)| **field == *name.value);
                        let got = field.map_or("no such field", |(_, value)| value);
                        if !value.value.0.iter().any(|text| text.value.as_str() == got) {
                            let expected = format!("`{}` in the key as written", name.value);
                            Self::fail(&value.span, &expected, &format!("`{got}`"), context);
                        }
                    }
                }
            }
        }
        if let Some(given) = self.file.tags.given() {
            counted += 1;
            match found.entry() {
                Err(why) => Self::fail(&given.span, "tags", &why, context),
                Ok(lookup) => Self::check_tags("the tag", &given.value.0, &lookup.tags(), context),
            }
        }
        counted
    }

    fn check_purges(&self, found: &Found<'_>, context: &mut CompileContext) -> usize {
        let Some(given) = self.file.purges.given() else { return 0 };
        match found {
            Found::Mutation(mutation) if given.value.0.is_empty() => {
                if mutation.covered {
                    Self::fail(&given.span, "no purge rule", "one that applies", context);
                }
            }
            Found::Mutation(mutation) => {
                Self::check_tags("a purge of", &given.value.0, &mutation.tags, context);
            }
            Found::Lookup(_) => Self::fail(&given.span, "a write", "a read", context),
            Found::Pass(_, reason) => {
                Self::fail(&given.span, "a write", &format!("`{reason}`"), context);
            }
        }
        1
    }

    fn check_tags(
        what: &str,
        expected: &[Located<TomlString>],
        got: &[Tag],
        context: &mut CompileContext,
    ) {
        for text in expected {
            if got.contains(&Tag::new(text.value.as_str())) {
                continue;
            }
            let names = got.iter().filter(|tag| !tag.is_auxiliary()).map(Tag::as_str);
            let names: Vec<&str> = names.collect();
            let expected = format!("{what} `{}`", text.value.shown());
            Self::fail(&text.span, &expected, &format!("`{}`", names.join("`, `")), context);
        }
    }

    /// Tests whether another request has the same entry. Returns how many others there are.
    fn check_others(
        &self,
        text: &Located<TomlString>,
        found: &Found<'_>,
        context: &mut CompileContext,
    ) -> usize {
        let others = [(&self.file.same_entry_as, true), (&self.file.differs_from, false)];
        let mut counted = 0;
        for (slot, is_same) in others {
            let Setting::Given(given) = slot else { continue };
            counted += 1;
            let says = &given.value;
            let tables = [&says.headers, &says.cookies, &says.identity];
            let has_none = tables.iter().all(|table| table.given().is_none());
            if says.request.given().is_none() && has_none {
                let message = "the other request says nothing, so it is this one";
                let builder = DiagnosticBuilder::error(given.span.clone(), message);
                let builder = builder.allowed("request, headers, cookies, identity");
                context.report.push(builder.hint("write what it has that this one has not"));
                continue;
            }
            let text = given.value.request.given().unwrap_or(text);
            let Some(other) = self.request(text, Some(&given.value), context) else { continue };
            let other = Found::new(self.rules, &other, None);
            let expected = if is_same { "the same entry" } else { "another entry" };
            match (found.key(), other.key()) {
                (Ok(one), Ok(two)) if (one == two) == is_same => {}
                (Ok(_), Ok(_)) => {
                    let got = if is_same { "another one" } else { "the same one" };
                    Self::fail(&given.span, expected, got, context);
                }
                (Err(why), _) => {
                    Self::fail(&given.span, expected, &format!("{why} for this request"), context);
                }
                (_, Err(why)) => {
                    Self::fail(&given.span, expected, &format!("{why} for the other"), context);
                }
            }
        }
        counted
    }
}
