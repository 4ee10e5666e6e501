//! Compiles `[[apps]]`, and finds the app that a rule names.

use std::sync::Arc;

use super::{conditions, upstream};
use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlList, TomlString, nearest};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file::{self, AppSection, MatchSection};
use crate::config::model::AppSettings;
use crate::policy::apps::{AppHosts, AppId, MAX_APPS, MAX_HOSTS, RuleApp};
use crate::policy::request_match::RequestMatch;
use crate::semantics::forward;
use crate::upstream::UpstreamSettings;

/// What the app of `[upstream]` is called where another one may stand.
pub const FIRST: &str = "upstream";

/// The longest name of an app, in bytes.
const MAX_NAME: usize = 32;

/// The apps of a file.
#[derive(Default)]
pub struct AppTable {
    /// Those of `[[apps]]`, by their places; none where one of them has errors.
    pub settings: Option<Vec<AppSettings>>,
    /// Which hosts are of which app.
    pub hosts: Arc<AppHosts>,
    names: Vec<ListedName>,
    /// Whether the app of `[upstream]` has one host for all.
    first_joins_hosts: bool,
}

/// An app whose name is valid.
struct ListedName {
    name: Arc<str>,
    id: AppId,
    at: SourceSpan,
    joins_hosts: bool,
    /// Whether a rule names it.
    is_used: std::cell::Cell<bool>,
}

impl AppTable {
    /// The apps of a file. What is not said of them is as `first` has it.
    pub fn compile(
        file: &file::ConfigFile,
        first: Option<&UpstreamSettings>,
        context: &mut CompileContext,
    ) -> Self {
        let list = file.apps.get().map_or(&[][..], |list| &list.0);
        if let Some(extra) = list.get(MAX_APPS) {
            let message = format!("the file has {} apps", list.len());
            let builder = DiagnosticBuilder::error(extra.span.clone(), message)
                .allowed(format!("at most {MAX_APPS}"))
                .hint("start a second sidecar for the others");
            context.report.push(builder);
        }
        let joins_hosts = |host_key: &Setting<TomlString>| host_key.given().is_some();
        let first_joins_hosts =
            file.upstream.get().is_some_and(|upstream| joins_hosts(&upstream.host_key));
        let (mut hosts, mut settings) = (AppHosts::default(), Some(Vec::new()));
        let mut names: Vec<ListedName> = Vec::new();
        for (place, located) in list.iter().take(MAX_APPS).enumerate() {
            let id = AppId::of_listed(place);
            let name = name(located, &names, context);
            self::hosts(located, id, (&names, name.as_ref()), &mut hosts, context);
            let compiled = name.as_ref().and_then(|name| app(located, name, first, context));
            // One that is broken leaves the places of the others as they are.
            match (compiled, &mut settings) {
                (Some(compiled), Some(all)) => all.push(compiled),
                _ => settings = None,
            }
            if let Some(name) = name {
                let at = located.value.name.given().map_or(0..0, |name| name.span.clone());
                let joins_hosts = joins_hosts(&located.value.host_key);
                names.push(ListedName { name, id, at, joins_hosts, is_used: false.into() });
            }
        }
        if matches!(file.apps, Setting::Bad) {
            settings = None;
        }
        Self { settings, hosts: Arc::new(hosts), names, first_joins_hosts }
    }

    /// The app that a rule names in `app`; that of `[upstream]` where it names none.
    fn of_rule(&self, slot: &Setting<TomlString>, context: &mut CompileContext) -> RuleApp {
        let Some(given) = slot.given() else { return RuleApp::default() };
        let text = given.value.as_str();
        if written_out(given, context) {
            if text == FIRST {
                return RuleApp::default();
            }
            if let Some(found) = self.names.iter().find(|app| *app.name == *text) {
                found.is_used.set(true);
                return RuleApp { id: found.id, name: Some(Arc::clone(&found.name)) };
            }
            // The name may be that of an app which is broken otherwise.
            if self.settings.is_some() {
                context.report.push(self.unknown(text, given));
            }
        }
        RuleApp::default()
    }

    fn unknown(&self, text: &str, given: &Located<TomlString>) -> DiagnosticBuilder {
        let names: Vec<&str> = self.names.iter().map(|app| &*app.name).chain([FIRST]).collect();
        let hint = match nearest(text, &names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!(
                "add [[apps]] with name = \"{text}\", its hosts and its url, or remove the key: \
                 then the rule is for the app of [upstream]"
            ),
        };
        DiagnosticBuilder::error(given.span.clone(), format!("there is no app `{text}`"))
            .allowed(names.join(", "))
            .hint(hint)
    }

    /// Whether one host stands for all of an app.
    pub fn joins_hosts(&self, app: AppId) -> bool {
        match self.names.iter().find(|known| known.id == app) {
            Some(known) => known.joins_hosts,
            None => self.first_joins_hosts,
        }
    }

    /// The app that a rule is for, and what a request must have besides.
    pub fn conditions(
        &self,
        app: &Setting<TomlString>,
        conditions: &Setting<MatchSection>,
        context: &mut CompileContext,
    ) -> (RuleApp, RequestMatch) {
        let app = self.of_rule(app, context);
        let compiled = conditions::conditions(conditions, &app, context);
        self.check_hosts(&app, conditions, context);
        (app, compiled)
    }

    /// Warns about hosts in `match` of a rule that are of another app than the rule.
    fn check_hosts(
        &self,
        app: &RuleApp,
        conditions: &Setting<MatchSection>,
        context: &mut CompileContext,
    ) {
        let hosts = conditions.get().and_then(|section| section.host.get());
        for text in hosts.map_or(&[][..], |form| &form.0) {
            let of = self.hosts.of(&text.value.as_str().to_ascii_lowercase());
            if of == app.id {
                continue;
            }
            let name = self.names.iter().find(|known| known.id == of);
            let name = name.map_or(FIRST, |known| &*known.name);
            let message = format!(
                "this rule gets no request for `{}`, which is a host of the app `{name}`",
                text.value.shown()
            );
            let hint = format!("write app = \"{name}\", or another host");
            context.report.push(DiagnosticBuilder::warning(text.span.clone(), message).hint(hint));
        }
    }

    /// Notes each app that no rule is for.
    pub fn warn_unused(&self, context: &mut CompileContext) {
        for app in self.names.iter().filter(|app| !app.is_used.get()) {
            let message =
                format!("no route is for the app `{}`, so nothing of it is cached", app.name);
            let hint = format!("add a route with app = \"{}\"", app.name);
            context.report.push(DiagnosticBuilder::note(app.at.clone(), message).hint(hint));
        }
    }
}

/// Whether a name stands in the file itself: names are shown in metrics and logs, where no value of
/// a variable may be.
fn written_out(given: &Located<TomlString>, context: &mut CompileContext) -> bool {
    let is_written = !context.report.source().shown(&given.span).contains("${");
    if !is_written {
        let message = "the name of an app is shown to operators, so it cannot be a variable";
        let hint = "write it out, as in \"shop\"";
        context.report.push(DiagnosticBuilder::error(given.span.clone(), message).hint(hint));
    }
    is_written
}

/// The name of an app that no earlier one has.
fn name(
    located: &Located<AppSection>,
    earlier: &[ListedName],
    context: &mut CompileContext,
) -> Option<Arc<str>> {
    let (file, table) = (&located.value, (&located.span, &located.value.unknown));
    let given = file.name.required("name", table, "name = \"shop\"", &mut context.report)?;
    if !written_out(given, context) {
        return None;
    }
    let text = given.value.as_str();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(fits) {
        let what = format!("`{text}` is not a name of an app");
        let allowed = Some("1 to 32 letters, digits, `.`, `_` and `-`");
        context.report.malformed(given, "a name", what, allowed, "write one such as \"shop\"");
        return None;
    }
    if text == FIRST {
        let message = format!("`{FIRST}` is the name of the app in [upstream]");
        let builder = DiagnosticBuilder::error(given.span.clone(), message);
        context.report.push(builder.hint("give this one another name"));
        return None;
    }
    if let Some(known) = earlier.iter().find(|known| *known.name == *text) {
        let place = context.report.source().line_for(&known.at, &given.span);
        let message = format!("the app at {place} is called `{text}`, too");
        let builder = DiagnosticBuilder::error(given.span.clone(), message);
        context.report.push(builder.hint("give one of the two another name, or join their hosts"));
        return None;
    }
    Some(text.into())
}

/// Gives an app its hosts.
fn hosts(
    located: &Located<AppSection>,
    id: AppId,
    (earlier, own): (&[ListedName], Option<&Arc<str>>),
    all: &mut AppHosts,
    context: &mut CompileContext,
) {
    let (file, table) = (&located.value, (&located.span, &located.value.unknown));
    let example = "hosts = [\"shop.example.com\"]";
    let Some(given) = file.hosts.required("hosts", table, example, &mut context.report) else {
        return;
    };
    let texts = &given.value.0;
    if texts.is_empty() && context.report.source().is_empty_list(&given.span) {
        let builder =
            DiagnosticBuilder::error(given.span.clone(), "an app without a host gets no request");
        context.report.push(builder.hint(format!("write {example}")));
    }
    if texts.len() > MAX_HOSTS {
        let message = format!("the list has {} hosts", texts.len());
        let builder = DiagnosticBuilder::error(given.span.clone(), message);
        context.report.push(
            builder
                .allowed(format!("at most {MAX_HOSTS}"))
                .hint("write \"*.example.com\" for all hosts below a name"),
        );
    }
    for text in texts.iter().take(MAX_HOSTS) {
        let Some(host) = host(text, context) else { continue };
        let Some(known) = all.insert(&host, id) else { continue };
        let other = earlier.iter().find(|app| app.id == known).map(|app| &app.name);
        let message = match other.filter(|other| Some(*other) != own) {
            Some(other) => {
                format!("`{}` is a host of the app `{other}` already", text.value.shown())
            }
            None => format!("`{}` is listed twice", text.value.shown()),
        };
        let builder = DiagnosticBuilder::error(text.span.clone(), message);
        context.report.push(builder.hint("a host is of one app: remove one of the two"));
    }
}

/// A host of an app, in lower case.
fn host(text: &Located<TomlString>, context: &mut CompileContext) -> Option<Box<str>> {
    let host = text.value.as_str();
    let name = host.strip_prefix("*.").unwrap_or(host);
    let has_port = name
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']') && port.bytes().all(|b| b.is_ascii_digit()));
    let is_name = forward::is_host(name.as_bytes())
        && !name.is_empty()
        && !name.contains('*')
        && !name.ends_with('.');
    if is_name && !has_port {
        return Some(host.to_ascii_lowercase().into());
    }
    let what = if is_name {
        format!("`{}` has a port, and the port does not count", text.value.shown())
    } else {
        format!("`{}` is not a host", text.value.shown())
    };
    context.report.malformed(
        text,
        "a host",
        what,
        Some("a name or an address without a port, or `*.` and a name"),
        if name.parse::<std::net::Ipv6Addr>().is_ok() {
            "write an address of IPv6 in brackets: \"[::1]\""
        } else {
            "write \"shop.example.com\", or \"*.example.com\" for all hosts below it"
        },
    );
    None
}

/// The settings of an app: those of `[upstream]`, but for its own.
fn app(
    located: &Located<AppSection>,
    name: &Arc<str>,
    first: Option<&UpstreamSettings>,
    context: &mut CompileContext,
) -> Option<AppSettings> {
    let file = &located.value;
    let table = (&located.span, &file.unknown);
    let example = "url = \"http://127.0.0.1:8001\"";
    let url = file.url.required("url", table, example, &mut context.report);
    let target = url.and_then(|url| upstream::target(url, context));
    let host_key = upstream::host_key(&file.host_key, context);
    let host = file.host.get()?.0;
    let upstream = UpstreamSettings { target: target?, host, ..first?.clone() };
    Some(AppSettings { name: Arc::clone(name), upstream, host_key })
}

/// The apps of a list that name a URL, with its place.
pub fn urls(list: &Setting<TomlList<AppSection>>) -> impl Iterator<Item = &Located<TomlString>> {
    let apps = list.get().map_or(&[][..], |list| &list.0);
    apps.iter().filter_map(|app| app.value.url.given())
}
