//! Lint of the sections: trusted proxies, debug headers, the number of tags, the connections of
//! clients, and the times of `[redis]` against each other.

use std::time::Duration;

use super::super::compile::{codings, socket_path};
use super::super::context::CompileContext;
use super::super::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use super::super::file;
use super::super::model::ConfigLimits;
use super::view::{CompiledParts, LintFile, texts};
use crate::policy::template::Template;
use crate::redis::{OnLoss, RedisSettings};
use crate::units::{show_duration, show_size};
use crate::upstream::tunnels_of;

/// How long a sidecar that has lost Redis may take to reconnect. With a shorter grace its purges
/// may come too late.
const MAX_RETRY_DELAY: Duration = Duration::from_millis(250);

/// Serving purged entries for longer than this is probably not intended.
const LONG_WITHOUT_REDIS: Duration = Duration::from_mins(1);

/// Checks the sections.
pub fn check(whole: &LintFile<'_>, parts: &CompiledParts<'_>, context: &mut CompileContext) {
    patterns(whole, context);
    trust(whole, context);
    fronts(whole, context);
    defaults(whole, context);
    host_key(whole, context);
    debug(whole, context);
    tunnels(whole, context);
    if let Some(section) = whole.file.compress.given() {
        let routes = whole.routes.iter().map(|route| route.spec);
        codings::lint(section, routes, parts.limits, context);
    }
    if let Some(limits) = parts.limits {
        tags(whole, limits.tags, context);
        pinned(whole, limits.pinned, context);
        uploads(whole, limits, context);
        stall(whole, limits.stall, context);
    }
    if let (Some(settings), Some(section)) = (parts.redis, whole.file.redis.given()) {
        if settings.secret.is_none() {
            unsealed(&section.span, context);
        }
        redis(settings, &section.value, context);
    }
}

/// Warns about a pattern of `include` that looks like one of a shell.
fn patterns(whole: &LintFile<'_>, context: &mut CompileContext) {
    for text in texts(&whole.file.include) {
        let shown = text.value.shown();
        if text.value.as_str().contains(['?', '[', '{']) && !text.value.is_from_environment() {
            let message =
                format!("only `*` stands for other text, so `{shown}` is taken as written");
            let builder = DiagnosticBuilder::warning(text.span.clone(), message);
            context.report.push(builder.hint("write \"conf.d/*.toml\", or name the files"));
        }
    }
}

/// Warns about a socket whose peers are not trusted, and about trust in peers that cannot be.
fn socket_peers(listen: &file::ListenSection, context: &mut CompileContext) {
    let Some(address) = listen.address.given() else { return };
    let trusted = texts(&listen.trusted_proxies);
    let named = trusted.iter().find(|text| text.value.as_str() == "unix");
    match (socket_path::is_socket(address.value.as_str()), named) {
        (true, None) => {
            let message = "what connects to the socket is not trusted: all clients are one, \
                           without an address, and what the proxy in front says of them is \
                           replaced, or keeps their requests from the cache";
            let hint = "write trusted_proxies = [\"unix\"], and let the proxy set X-Forwarded-For";
            context
                .report
                .push(DiagnosticBuilder::warning(address.span.clone(), message).hint(hint));
        }
        (false, Some(text)) => {
            let message = "nothing connects by a socket, because `address` is a TCP port";
            let hint = "remove it, or name the addresses of the proxy";
            context.report.push(DiagnosticBuilder::warning(text.span.clone(), message).hint(hint));
        }
        (true, Some(_)) | (false, None) => {}
    }
}

/// Warns about `[defaults]` that no route takes over.
fn defaults(whole: &LintFile<'_>, context: &mut CompileContext) {
    let Some(given) = whole.file.defaults.given() else { return };
    let taken = |value: &SourceSpan| {
        let routes = whole.file.routes.get().map_or(&[][..], |list| &list.0);
        let of = |route| context.defaults.inherited(route).iter().any(|(_, span)| span == value);
        routes.iter().any(|route| of(&route.span))
    };
    let unused: Vec<SourceSpan> =
        given.value.values.iter().filter(|value| !taken(value)).cloned().collect();
    for value in unused {
        let message = "no route takes this over: each has a value of its own";
        let builder = DiagnosticBuilder::warning(value, message);
        context.report.push(builder.hint("remove it"));
    }
}

/// Warns about a front that nobody trusts, so that what it says of requests does not count.
fn fronts(whole: &LintFile<'_>, context: &mut CompileContext) {
    let listen = whole.file.listen.get();
    let is_trusted = listen.is_some_and(|listen| !texts(&listen.trusted_proxies).is_empty());
    let named = whole.file.fronts.get().map_or(&[][..], |list| &list.0);
    if let (false, Some(front)) = (is_trusted, named.first()) {
        let message = format!(
            "nothing of [listen] says where {} forwards requests from, so what it says of the \
             scheme, the host and the client is not believed, and keeps requests from the cache",
            front.value.0.as_str()
        );
        let hint = "write trusted_proxies = [\"10.0.0.0/8\"] in [listen], with its addresses";
        context.report.push(DiagnosticBuilder::warning(front.span.clone(), message).hint(hint));
    }
}

/// Warns about `trusted_proxies` that includes every address.
fn trust(whole: &LintFile<'_>, context: &mut CompileContext) {
    let Some(listen) = whole.file.listen.given() else { return };
    socket_peers(&listen.value, context);
    for text in texts(&listen.value.trusted_proxies)
        .iter()
        .filter(|text| text.value.as_str().ends_with("/0"))
    {
        let message = "this trusts every address: any client can forge the host with \
                       X-Forwarded-Host, and its own address with X-Forwarded-For";
        let hint = "name only the proxy in front, as in trusted_proxies = [\"127.0.0.1\"]";
        context.report.push(DiagnosticBuilder::warning(text.span.clone(), message).hint(hint));
    }
}

/// Warns about fields that read a host which is the same in all requests.
fn host_key(whole: &LintFile<'_>, context: &mut CompileContext) {
    let given = whole.file.upstream.get().and_then(|upstream| upstream.host_key.given());
    let fields = whole.file.fields.get().map_or(&[][..], |table| &table.0);
    let reads_host = |form: &file::FieldForm| form.host.given().is_some_and(|host| host.value);
    if let Some(given) = given
        && let Some((name, _)) = fields.iter().find(|(_, form)| form.get().is_some_and(reads_host))
    {
        let message = format!(
            "the field `{}` reads the host, which is this one in all requests: hosts share their \
             entries all the same",
            name.value
        );
        let hint = "remove `host_key` if the origin tells hosts apart, else the field";
        context.report.push(DiagnosticBuilder::warning(given.span.clone(), message).hint(hint));
    }
}

/// Warns about debug headers on a public address.
fn debug(whole: &LintFile<'_>, context: &mut CompileContext) {
    let address = whole.file.listen.get().and_then(|listen| listen.address.get());
    let local = address.is_none_or(|text| {
        let is_loopback = |address: std::net::SocketAddr| address.ip().is_loopback();
        socket_path::is_socket(text.as_str()) || text.as_str().parse().is_ok_and(is_loopback)
    });
    let headers = whole.file.debug.get().and_then(|debug| debug.headers.given());
    if let (Some(given), false) = (headers.filter(|given| given.value), local) {
        let message =
            "responses show keys, tags and routes, and [listen] is reachable from other machines";
        context.report.push(
            DiagnosticBuilder::warning(given.span.clone(), message)
                .hint("write headers = false; `sidecache explain` shows the same"),
        );
    }
}

/// Warns about routes with nearly as many tags as the limit allows.
fn tags(whole: &LintFile<'_>, most: usize, context: &mut CompileContext) {
    for route in whole.cached() {
        // Each entry also has the tag of its URL, and a family for each field of a tag.
        let families = route.spec.tags.iter().flat_map(Template::fields).count();
        let own = route.spec.tags.len() + families + 1;
        if let (true, Some(given)) = (own >= most, route.file.tags.given()) {
            let message = format!(
                "with the tag of the URL and the families these are {own} tags, and the limit is \
                 {most}: a response with one more tag is not stored"
            );
            context.report.push(
                DiagnosticBuilder::warning(given.span.clone(), message)
                    .hint(format!("write tags = {} in [limits]", own.saturating_mul(2).max(2048))),
            );
        }
    }
}

/// Warns about bodies that one client could never have read before they are forwarded.
fn uploads(whole: &LintFile<'_>, limits: &ConfigLimits, context: &mut CompileContext) {
    let Some(section) = whole.file.limits.get() else { return };
    let given = section.uploads.given().map(|given| &given.span);
    let given = given.or_else(|| section.purge_body.given().map(|given| &given.span));
    if let Some(span) = given.filter(|_| limits.purge_body > limits.uploads / 2) {
        let message = format!(
            "one client takes at most half of `uploads` ({}), and bodies of up to `purge_body` \
             ({}) are read before their writes are forwarded",
            show_size(limits.uploads),
            show_size(limits.purge_body)
        );
        let hint = "make `uploads` at least twice as large as `purge_body`, or longer bodies are \
                    streamed, and purge when they break off";
        context.report.push(DiagnosticBuilder::warning(span.clone(), message).hint(hint));
    }
}

/// Warns about requests that give up waiting before anything can be cut for them.
fn stall(whole: &LintFile<'_>, stall: Duration, context: &mut CompileContext) {
    let upstream = whole.file.upstream.get();
    let Some(wait) = upstream.and_then(|upstream| upstream.wait_timeout.get()) else { return };
    let section = whole.file.limits.get();
    let given = section.and_then(|limits| limits.stall.given()).map(|given| &given.span);
    let given = given.or_else(|| Some(&upstream?.wait_timeout.given()?.span));
    if let Some(span) = given.filter(|_| stall >= wait.0) {
        let message = format!(
            "a request waits {} for a connection, and a client that holds one may pause for {}: \
             it is never cut for another address",
            show_duration(wait.0),
            show_duration(stall)
        );
        let hint = "make `stall` in [limits] at most half of `wait_timeout` in [upstream]";
        context.report.push(DiagnosticBuilder::warning(span.clone(), message).hint(hint));
    }
}

/// Warns about more connections of clients than there can be.
fn pinned(whole: &LintFile<'_>, pinned: usize, context: &mut CompileContext) {
    let upstream = whole.file.upstream.get();
    let Some(most) = upstream.and_then(|upstream| upstream.max_connections.get()) else { return };
    let half = usize::try_from(most.0 / 2).unwrap_or(usize::MAX);
    let given = whole.file.limits.get().and_then(|limits| limits.pinned.given());
    if let Some(given) = given.filter(|_| pinned > half) {
        let message = format!(
            "at most half of the connections to the origin belong to clients, and \
             `max_connections` in [upstream] is {}",
            most.0
        );
        context.report.push(
            DiagnosticBuilder::warning(given.span.clone(), message)
                .hint(format!("write pinned = {half}, or raise `max_connections`")),
        );
    }
}

/// Warns about more tunnels than there can be.
fn tunnels(whole: &LintFile<'_>, context: &mut CompileContext) {
    let Some(upstream) = whole.file.upstream.get() else { return };
    let (Some(most), Some(given)) = (upstream.max_connections.get(), upstream.max_tunnels.given())
    else {
        return;
    };
    let most_tunnels = tunnels_of(usize::try_from(most.0).unwrap_or(usize::MAX)) as u64;
    if given.value.0 > most_tunnels {
        let message = format!(
            "at least a quarter of the connections to the origin stays for plain requests, and \
             `max_connections` is {}",
            most.0
        );
        context.report.push(
            DiagnosticBuilder::warning(given.span.clone(), message)
                .hint(format!("write max_tunnels = {most_tunnels}, or raise `max_connections`")),
        );
    }
}

/// Warns about a Redis whose entries anybody could have written, who can write to it.
fn unsealed(section: &SourceSpan, context: &mut CompileContext) {
    let message = "without `secret`, whoever can write to this Redis can write responses and undo \
                   purges, and the hashes of credentials in it are those of every other \
                   installation";
    let hint = "add secret = \"${SIDECACHE_SECRET}\", of 16 characters at least and the same in \
                all sidecars (docs/src/reference/redis.md#secret)";
    context.report.push(DiagnosticBuilder::warning(section.clone(), message).hint(hint));
}

/// The times of `[redis]`.
fn redis(settings: &RedisSettings, file: &file::RedisSection, context: &mut CompileContext) {
    let mut push = |at: &SourceSpan, message: String, hint: String| {
        context.report.push(DiagnosticBuilder::warning(at.clone(), message).hint(hint));
    };
    if let Some(given) = file.degraded_ttl.given() {
        if settings.on_redis_loss == OnLoss::Bypass {
            push(
                &given.span,
                "`degraded_ttl` has no effect with on_redis_loss = \"bypass\"".into(),
                "remove one of the two".into(),
            );
        } else if settings.degraded_ttl > LONG_WITHOUT_REDIS {
            let shown = show_duration(settings.degraded_ttl);
            let message = format!(
                "without Redis this sidecar serves for up to {shown} entries that writes through \
                 other sidecars have purged"
            );
            push(&given.span, message, "write degraded_ttl = \"2s\"".into());
        }
    }
    // A heartbeat is sent every quarter of the lease, and must be received before the lease ends.
    let most = settings.lease * 3 / 4;
    if settings.deadline > most {
        let at = file
            .deadline
            .given()
            .map(|given| &given.span)
            .or_else(|| file.lease.given().map(|given| &given.span));
        let (deadline, lease) = (show_duration(settings.deadline), show_duration(settings.lease));
        let message = format!(
            "a Redis that takes as long as its deadline of {deadline} cannot renew a lease of \
             {lease} in time: each hit from memory would then ask Redis"
        );
        let hint = format!(
            "write lease = \"{}\", or a shorter deadline",
            show_duration(settings.deadline * 4)
        );
        if let Some(at) = at {
            push(at, message, hint);
        }
    }
    if let Some(given) = file.loss_after.given().filter(|_| settings.loss_after < settings.deadline)
    {
        let deadline = show_duration(settings.deadline);
        let message = format!(
            "Redis would count as lost before a call has had its deadline of {deadline}: whatever \
             is slow is then taken for gone"
        );
        push(&given.span, message, "write loss_after = \"1s\"".into());
    }
    if let Some(given) =
        file.rejoin_grace.given().filter(|_| settings.rejoin_grace < MAX_RETRY_DELAY)
    {
        let message = "the other sidecars may take longer than this to reconnect to Redis and \
                       publish what they have purged meanwhile";
        push(&given.span, message.into(), "write rejoin_grace = \"1s\"".into());
    }
}
