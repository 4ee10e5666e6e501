//! `warm`: sends the requests that clients will send, so that the responses are stored before they
//! come.
//!
//! Reads a list or a log, sends each GET that a route matches once, and reports the results. In a
//! legacy app a GET may have side effects (`/items/7/delete`), so requests without a route are not
//! sent unless `--unrouted` is given.

use std::io::BufReader;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version};
use tokio_util::sync::CancellationToken;

use self::list::{Bounds, WarmList};
use self::send::{SendSettings, WarmRequest};
use self::summary::NotSent;
use super::error::CommandError;
use super::exit_codes::EXIT_FAILED;
use super::format::clean;
use super::http::{Endpoint, block_on};
use super::output;
use super::remote::read_header;
use super::rules::rules_from;
use crate::clock::Clock;
use crate::config::Config;
use crate::outcome::Reason;
use crate::policy::plan::{Plan, PolicyRules, RequestView as Question};
use crate::semantics::request_fields::RequestFields;
use crate::units::parse_duration;

mod list;
mod log_line;
mod send;
mod summary;

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache warm --from urls.txt
  sidecache warm --from /var/log/nginx/access.log --limit 500 --host app.example.com
  zcat access.log.2.gz | sidecache warm --from - --rate 20 -H 'x-tenant-id: acme'
  sidecache warm --from urls.txt --to http://10.0.0.7:8080 -H 'accept-encoding: gzip'

A list has one URL or path per line, and # comments. A log is one of nginx or Apache (common or
combined format) or Sidecache's own, as text or JSON (which has no query strings). Each GET with a
2xx or 304 is sent once, the most frequent first.

Entries are stored per host and key: --host sets the host that clients use, for lines that have
none; -H sets the headers that routes are keyed by, and headers that responses vary by, such as the
`accept-encoding: gzip` of browsers.

Exits with 1 if every request fails.";

#[derive(Args, Debug)]
pub(super) struct WarmArgs {
    /// The list or log; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Where to send the requests, as http://HOST:PORT. Default: `[listen] address` of --config.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// The Host of requests whose line has none. Default: the host of --to.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// A request header, as `name: value`. May be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Send only the N most frequent requests.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// How many requests to send at once.
    #[arg(
        long,
        value_name = "N",
        default_value = "4",
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    concurrency: u16,
    /// The maximum number of requests per second.
    #[arg(long, value_name = "N", value_parser = read_rate)]
    rate: Option<f64>,
    /// How long one request may take.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// Also send requests that no route of --config matches. Such a GET may have side effects in
    /// the app.
    #[arg(long)]
    unrouted: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(path: &Path, args: &WarmArgs) -> Result<ExitCode, CommandError> {
    let (headers, named) = read_headers(args)?;
    let (to, rules) = destination(path, args)?;
    let list = read_list(&args.from)?;
    let fallback = match named {
        Some(host) => host,
        None => HeaderValue::from_str(&to.authority()).map_err(|_| {
            CommandError::Usage("--to: the host cannot be sent in a header".to_owned())
        })?,
    };
    let guessed = list.requests.iter().any(|(wanted, _)| wanted.host.is_none())
        && args.host.is_none()
        && !headers_name_host(args);
    let rules = rules.as_ref().map(|rules| Selection { rules, unrouted: args.unrouted });
    let (jobs, not_sent) = choose(&list, rules, &headers, &fallback, args.limit);
    print_notes(&list, &not_sent, guessed.then_some(&to));
    if jobs.is_empty() {
        let nothing = "nothing to send";
        if args.json {
            output::print(&format!("{:#}", summary::Tally::default().json(0, &list, &not_sent)));
        } else {
            output::print(nothing);
        }
        return Ok(if list.unreadable > 0 || !not_sent.is_empty() {
            EXIT_FAILED.into()
        } else {
            ExitCode::SUCCESS
        });
    }
    let timeout = args.timeout;
    let settings = SendSettings {
        to,
        headers,
        concurrency: args.concurrency.into(),
        rate: args.rate,
        timeout,
    };
    let tally = block_on(async {
        let stop = CancellationToken::new();
        let signalled = stop.clone();
        // After the first Ctrl-C only a few lines remain to be printed, so a second one has no
        // effect.
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                signalled.cancel();
            }
        });
        send::send(&settings, &jobs, &Clock::system(), &stop).await
    })
    .map_err(|error| CommandError::Failed(error.to_string()))?;
    if args.json {
        output::print(&format!("{:#}", tally.json(jobs.len(), &list, &not_sent)));
    } else {
        output::print(&tally.text(jobs.len()));
    }
    Ok(if tally.all_failed() { EXIT_FAILED.into() } else { ExitCode::SUCCESS })
}

fn read_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.001);
    rate.ok_or_else(|| "write a number of requests per second, such as 20 or 0.5".to_owned())
}

/// The headers of each request, and the value of `Host`.
fn read_headers(args: &WarmArgs) -> Result<(HeaderMap, Option<HeaderValue>), CommandError> {
    let mut headers = HeaderMap::new();
    for given in &args.headers {
        let (name, value) = read_header(given)?;
        // `read_header` has validated the name and the value.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value))
        {
            headers.append(name, value);
        }
    }
    let given = headers.remove(HOST);
    let host = match &args.host {
        Some(host) => Some(HeaderValue::from_str(host).map_err(|_| {
            CommandError::Usage("--host: this cannot be sent in a header".to_owned())
        })?),
        None => given,
    };
    Ok((headers, host))
}

fn headers_name_host(args: &WarmArgs) -> bool {
    args.headers.iter().any(|given| {
        given.split(':').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("host"))
    })
}

/// Where to send requests, and the rules that select them.
fn destination(
    path: &Path,
    args: &WarmArgs,
) -> Result<(Endpoint, Option<PolicyRules>), CommandError> {
    let given = args
        .to
        .as_deref()
        .map(|to| Endpoint::parse(to, 80))
        .transpose()
        .map_err(|why| CommandError::Usage(format!("--to: {why}")))?;
    match (given, Config::load(path)) {
        (given, Ok(config)) => {
            let to = given.unwrap_or_else(|| Endpoint::for_clients(&config.server.address));
            Ok((to, Some(rules_from(config))))
        }
        (Some(to), Err(_)) if args.unrouted => Ok((to, None)),
        (Some(_), Err(diagnostics)) => Err(CommandError::Usage(format!(
            "{diagnostics}\n  the routes of that file select what is sent; to send everything \
             without a file, add --unrouted: make sure that no GET of the list changes anything"
        ))),
        (None, Err(diagnostics)) => Err(CommandError::Config(diagnostics)),
    }
}

fn read_list(from: &Path) -> Result<WarmList, CommandError> {
    let read = if from.as_os_str() == "-" {
        list::read(&mut std::io::stdin().lock(), Bounds::DEFAULT)
    } else {
        std::fs::File::open(from)
            .and_then(|file| list::read(&mut BufReader::new(file), Bounds::DEFAULT))
    };
    read.map_err(|error| CommandError::Usage(format!("--from {}: {error}", from.display())))
}

/// What selects the requests to send.
#[derive(Clone, Copy)]
struct Selection<'a> {
    rules: &'a PolicyRules,
    /// Whether to send what no route takes. What a purge rule says to be a write is never sent.
    unrouted: bool,
}

/// The requests to send, and why the others are not sent.
fn choose(
    list: &WarmList,
    rules: Option<Selection<'_>>,
    headers: &HeaderMap,
    host: &HeaderValue,
    limit: Option<u64>,
) -> (Vec<WarmRequest>, NotSent) {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let (mut jobs, mut not_sent) = (Vec::new(), NotSent::new());
    for (wanted, _) in &list.requests {
        if jobs.len() == limit {
            break;
        }
        let named = wanted.host.as_deref().and_then(|name| HeaderValue::from_str(name).ok());
        let job = WarmRequest {
            host: named.unwrap_or_else(|| host.clone()),
            target: wanted.target.clone(),
        };
        match rules.and_then(|rules| refusal(rules, &job, headers)) {
            None => jobs.push(job),
            Some(why) => *not_sent.entry(why).or_default() += 1,
        }
    }
    (jobs, not_sent)
}

/// Why a request would certainly bypass the cache. A missing field is not certain, because a proxy
/// on the way may add it.
fn refusal(selection: Selection<'_>, job: &WarmRequest, headers: &HeaderMap) -> Option<String> {
    let uri: Uri = job.target.parse().ok()?;
    let mut headers = headers.clone();
    headers.insert(HOST, job.host.clone());
    let question = Question {
        app: selection.rules.apps.of(&uri, &headers),
        method: &Method::GET,
        uri: &uri,
        version: Version::HTTP_11,
        headers: &headers,
        fields: RequestFields::of(&headers),
        has_body: false,
        seen_body: None,
        identity: None,
        peer_is_trusted: false,
        bypass: None,
        client: Some(Ipv4Addr::LOCALHOST.into()),
        now: Clock::system().wall(),
        is_again: false,
    };
    match selection.rules.plan(&question) {
        Plan::Pass(..) if selection.unrouted => None,
        Plan::Pass(route, outcome)
            if route.is_none() || outcome.reason == Some(Reason::ModeOff) =>
        {
            Some(
                outcome.detail().map_or_else(|| "no route".to_owned(), |detail| detail.to_string()),
            )
        }
        // A header overrides the method, or a purge rule says that the request changes data.
        Plan::Mutate(method) => {
            Some(selection.rules.reason_of_write(&question, &method).as_str().to_owned())
        }
        _ => None,
    }
}

/// Prints notes on the list to stderr.
fn print_notes(list: &WarmList, not_sent: &NotSent, guessed: Option<&Endpoint>) {
    for (line, text) in &list.examples {
        output::note(&format!("cannot read line {line}: {text}"));
    }
    let shown = list.examples.len() as u64;
    if list.unreadable > shown {
        output::note(&format!("cannot read {} more lines", list.unreadable - shown));
    }
    for (why, count) in &list.skipped {
        output::note(&format!("skipped {count} lines: {}", why.as_str()));
    }
    if list.over_limit > 0 {
        output::note(&format!(
            "ignored {} lines: more than {} different requests",
            list.over_limit,
            list.requests.len()
        ));
    }
    for (why, count) in not_sent {
        output::note(&format!(
            "not sent: {count}: {}{}",
            clean(why),
            if why == "no route" { " (--unrouted sends them)" } else { "" }
        ));
    }
    if let Some(to) = guessed {
        output::note(&format!(
            "requests are sent with the host {}, and entries are stored per host: set the host \
             that clients use with --host",
            to.authority()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n[fields]\ntenant = { header \
                         = \"x-tenant-id\" }\n\
        [[routes]]\npath = \"/a/{id}\"\nttl = \"5m\"\nkey = [\"tenant\"]\n[[routes]]\npath = \
        \"/off\"\nttl = \"5m\"\nmode = \"off\"\n\
        [[purges]]\npath = \"/a/{id}\"\nmethods = [\"GET\"]\nmatch.query.do = \"delete\"\n\
        tags = [\"a\"]\n";

    #[test]
    fn only_what_a_route_takes_is_sent() {
        let rules = rules_from(
            Config::parse(RULES, "proxy.toml", &|_| None)
                .unwrap_or_else(|diagnostics| panic!("{diagnostics}")),
        );
        let routed = Selection { rules: &rules, unrouted: false };
        let text = "/a/1\n/a/2?x\n/off\n/delete/7\n/b\nhttp://other.test/a/1\n/a/3?do=delete\n";
        let list = list::read(&mut text.as_bytes(), Bounds::DEFAULT).unwrap();
        let host = HeaderValue::from_static("app.test");
        let (jobs, not_sent) = choose(&list, Some(routed), &HeaderMap::new(), &host, None);
        // Without the tenant, which a proxy on the way may add, it is still worth asking.
        let sent: Vec<_> =
            jobs.iter().map(|job| (job.host.to_str().unwrap(), job.target.as_str())).collect();
        assert_eq!(sent, [("app.test", "/a/1"), ("app.test", "/a/2?x"), ("other.test", "/a/1")]);
        assert_eq!(
            not_sent.into_iter().collect::<Vec<_>>(),
            [
                ("declared write".to_owned(), 1),
                ("mode off".to_owned(), 1),
                ("no route".to_owned(), 2)
            ]
        );
        let unrouted = Selection { unrouted: true, ..routed };
        let (jobs, not_sent) = choose(&list, Some(unrouted), &HeaderMap::new(), &host, None);
        assert_eq!(
            (jobs.len(), not_sent.into_keys().collect()),
            (6, vec!["declared write".to_owned()])
        );
        assert_eq!(choose(&list, None, &HeaderMap::new(), &host, None).0.len(), 7);
        assert_eq!(choose(&list, None, &HeaderMap::new(), &host, Some(2)).0.len(), 2);
    }

    #[test]
    fn a_rate_is_a_number_above_nothing() {
        assert_eq!(read_rate("0.5"), Ok(0.5));
        for bad in ["0", "-1", "NaN", "inf", "x", ""] {
            assert!(read_rate(bad).is_err(), "{bad}");
        }
    }
}
