//! Whether bodies depend on `Accept-Language`: what shadow mode and audits say of it, and what they
//! must not say.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::flow::Flow;
use crate::support::{Origin, Request, Response, eventually};

const ROUTE: &str = "/p/{id}";

/// Enough pages for a finding.
const PAGES: u64 = 20;

fn rules(more: &str) -> String {
    format!(
        "[[routes]]\npath = \"{ROUTE}\"\nttl = \"1m\"\nscope = \"public\"\ntags = \
         [\"p:{{id}}\"]\n{more}\n[[purges]]\npath = \"/p/{{id}}\"\ntags = [\"p:{{id}}\"]\n"
    )
}

async fn of(
    more: &str,
    handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> (Origin, Flow) {
    let app = Origin::start(handler);
    let flow = Flow::start(app.address, &rules(more)).await;
    (app, flow)
}

async fn read(flow: &Flow, page: u64, language: &str) -> String {
    flow.get(&format!("/p/{page}"), &[("accept-language", language)]).await.text().to_owned()
}

/// The pages in German and English, then again in German.
async fn read_all(flow: &Flow) {
    for page in 0..PAGES {
        for language in ["de-DE,de;q=0.9", "en-US,en;q=0.8", "de-DE,de;q=0.5"] {
            read(flow, page, language).await;
        }
    }
}

/// The finding, and the advice that follows from it.
fn found(flow: &Flow) -> (Option<&'static str>, Vec<String>) {
    let advice = flow.report().advice;
    let lines = advice.into_iter().map(|advice| advice.toml).filter(|toml| toml.contains("lang"));
    (flow.route(ROUTE).languages.finding, lines.collect())
}

fn metric(flow: &Flow, body: &str) -> u64 {
    let labels = format!("{{route=\"{ROUTE}\",body=\"{body}\"}}");
    flow.metric(&format!("sidecache_shadow_languages_total{labels}"))
}

/// The first language of a request, in an app that has German, and English for all others.
fn translated(request: &Request) -> &'static str {
    let is_german = request.header("accept-language").is_some_and(|said| said.starts_with("de"));
    if is_german { "Hallo" } else { "Hello" }
}

const SHADOW: &str = "mode = \"shadow\"";

#[tokio::test]
async fn pages_that_are_the_same_in_all_languages_need_no_language_in_the_key() {
    let (_app, flow) = of(SHADOW, |request| Response::ok(request.path.clone())).await;
    for page in 0..PAGES {
        assert_eq!(found(&flow), (None, vec![]), "{page} pages are not enough");
        for language in ["de-DE,de;q=0.9", "de-DE,de;q=0.9", "en-US,en;q=0.8"] {
            read(&flow, page, language).await;
        }
    }
    let dropped = "drop_headers = [\"accept-language\"]\n".to_owned();
    assert_eq!(found(&flow), (Some("never"), vec![dropped.clone()]));
    let report = flow.route(ROUTE).languages;
    assert_eq!((report.pages, report.languages), (PAGES, vec!["de".to_owned(), "en".to_owned()]));
    let why = &flow.report().advice[0].why;
    assert!(why.contains("never depended on Accept-Language: 20 pages in 2 languages"), "{why}");
    assert_eq!((metric(&flow, "same") >= PAGES, metric(&flow, "different")), (true, 0));
    assert_eq!(flow.proxy.shadow.language_totals(), (1, 0));
    assert_eq!(flow.proxy.shadow.totals().0, 0, "nothing is wrong");
}

#[tokio::test]
async fn one_page_that_differs_withdraws_it_at_once() {
    let (_app, flow) = of(SHADOW, |request| {
        let is_odd = request.path == "/p/77";
        Response::ok(if is_odd { translated(request) } else { "the same" })
    })
    .await;
    read_all(&flow).await;
    assert_eq!(found(&flow).0, Some("never"));
    read(&flow, 77, "en").await;
    assert_eq!(found(&flow).0, Some("never"));
    read(&flow, 77, "de").await;
    assert_eq!(found(&flow), (None, vec![]));
    read_all(&flow).await;
    assert_eq!(found(&flow), (None, vec![]), "and for good");
    // A response without the header counts against it as well: the advice would bring its body to
    // everybody.
    let (_app, flow) = of(SHADOW, |request| {
        Response::ok(if request.header("accept-language").is_some() { "x" } else { "default" })
    })
    .await;
    read_all(&flow).await;
    assert_eq!(found(&flow).0, Some("never"));
    read(&flow, 0, "").await;
    assert_eq!(flow.get("/p/1", &[]).await.text(), "default");
    assert_eq!(found(&flow), (None, vec![]));
}

#[tokio::test]
async fn an_app_that_translates_without_saying_so_is_told_with_its_languages() {
    let (_app, flow) = of(SHADOW, |request| Response::ok(translated(request))).await;
    read_all(&flow).await;
    let languages = "languages = [\"de\", \"en\"]\n".to_owned();
    assert_eq!(found(&flow), (Some("differs"), vec![languages]));
    assert_eq!(flow.route(ROUTE).languages.differing, PAGES);
    assert!(metric(&flow, "different") >= PAGES);
    // One that has them named already needs no advice.
    let named = format!("{SHADOW}\nlanguages = [\"de\", \"en\"]");
    let (_app, flow) = of(&named, |request| Response::ok(translated(request))).await;
    read_all(&flow).await;
    assert_eq!(found(&flow), (Some("differs"), vec![]));
}

#[tokio::test]
async fn a_route_that_says_so_itself_or_leaves_the_header_out_gets_no_finding() {
    for handler in [
        (|request| Response::ok(translated(request)).header("vary", "Accept-Language"))
            as fn(&Request) -> Response,
        |_| Response::ok("the same").header("vary", "accept-encoding, accept-language"),
    ] {
        let (_app, flow) = of(SHADOW, handler).await;
        read_all(&flow).await;
        assert_eq!(found(&flow), (None, vec![]));
        assert!(flow.route(ROUTE).languages.vary);
    }
    for key in ["drop_headers = [\"accept-language\"]", "pass_headers = [\"accept-language\"]"] {
        let (_app, flow) = of(&format!("{SHADOW}\n{key}"), |_| Response::ok("the same")).await;
        read_all(&flow).await;
        assert_eq!(found(&flow), (None, vec![]), "{key}");
        assert_eq!(metric(&flow, "same"), 0, "{key}");
    }
}

/// Redirects to a language have the same empty body, and errors the same text.
#[tokio::test]
async fn redirects_and_errors_are_no_evidence_that_pages_are_the_same() {
    let (_app, flow) = of(SHADOW, |request| {
        let language = if translated(request) == "Hallo" { "/de/" } else { "/en/" };
        Response::status(301, "").header("location", language).header("cache-control", "max-age=9")
    })
    .await;
    read_all(&flow).await;
    assert_eq!(found(&flow).0, Some("differs"));
    for status in [301, 404, 410] {
        let (_app, flow) = of(SHADOW, move |_| {
            let response = Response::status(status, "gone").header("location", "/");
            response.header("cache-control", "max-age=9")
        })
        .await;
        read_all(&flow).await;
        assert_eq!(flow.route(ROUTE).not_stored, [], "{status}");
        assert_eq!(found(&flow), (None, vec![]), "{status}");
    }
    // The app says that the languages are different, although the text is not.
    let (_app, flow) = of(SHADOW, |request| {
        let language = if translated(request) == "Hallo" { "de" } else { "en" };
        Response::ok("1").header("content-language", language)
    })
    .await;
    read_all(&flow).await;
    assert_eq!(found(&flow).0, Some("differs"));
}

/// What changes is neither put down to the language, nor held against it, where a purge or the end
/// of the freshness says so.
#[tokio::test]
async fn changes_are_not_put_down_to_the_language() {
    let version = AtomicU64::new(0);
    let (_app, flow) = of(SHADOW, move |request| {
        if request.method == "PUT" {
            version.fetch_add(1, Ordering::SeqCst);
        }
        Response::ok(version.load(Ordering::SeqCst).to_string())
    })
    .await;
    for round in 0..2 * PAGES {
        read(&flow, 1, "de").await;
        if round % 2 == 0 {
            flow.send("PUT", "/p/1", &[], "").await;
        } else {
            // Unseen by the sidecar: only the freshness has ended.
            flow.clock.advance(Duration::from_secs(61));
        }
        read(&flow, 1, "en").await;
        read(&flow, 1, "de").await;
    }
    let report = flow.route(ROUTE).languages;
    assert_eq!((report.unclear, report.differing, metric(&flow, "different")), (0, 0, 0));
    assert_eq!(report.finding, Some("never"), "{report:?}");
    // A body that is another each time is nobody's evidence.
    let count = AtomicU64::new(0);
    let (_app, flow) =
        of(SHADOW, move |_| Response::ok(count.fetch_add(1, Ordering::SeqCst).to_string())).await;
    read_all(&flow).await;
    assert_eq!(found(&flow), (None, vec![]));
}

#[tokio::test]
async fn pages_and_languages_are_bounded() {
    let limits = format!("{}[limits]\nshadow_keys = 50\n", rules(SHADOW));
    let app = Origin::start(|_| Response::ok("the same"));
    let flow = Flow::start(app.address, &limits).await;
    for page in 0..400 {
        read(&flow, page, "de").await;
        read(&flow, page, "en").await;
    }
    let report = flow.route(ROUTE).languages;
    assert!(report.pages <= 50, "what is forgotten is not counted: {report:?}");
    assert!(flow.metric("sidecache_limit_reached_total{limit=\"limits.shadow_keys\"}") >= 350);
    assert_eq!(report.finding, Some("never"));
    for at in 0..40 {
        let letter = char::from(b'a' + at % 26);
        read(&flow, 1, &format!("x{letter}{}", if at < 26 { "a" } else { "b" })).await;
    }
    let report = flow.route(ROUTE).languages;
    assert_eq!(report.languages.len(), 32);
    assert!(flow.metric("sidecache_limit_reached_total{limit=\"shadow.languages\"}") > 0);
}

/// A hit that is audited is fetched once more in another language that the route has seen.
#[tokio::test]
async fn an_audit_compares_with_another_language() {
    let same = (|_| Response::ok("the same")) as fn(&Request) -> Response;
    let own = (|request| Response::ok(translated(request))) as fn(&Request) -> Response;
    let said = (|_| Response::ok("the same").header("vary", "accept-language"))
        as fn(&Request) -> Response;
    for (handler, finding) in [(same, Some("never")), (own, Some("differs")), (said, None)] {
        let (app, flow) = of("audit = 1.0", handler).await;
        for page in 0..=PAGES {
            for language in ["de", "en"] {
                let body = read(&flow, page, language).await;
                let before = flow.route(ROUTE).audit.asked;
                assert_eq!(read(&flow, page, language).await, body, "a hit is not changed by it");
                eventually("the audit", Duration::from_secs(5), async || {
                    flow.route(ROUTE).audit.asked > before
                })
                .await;
            }
        }
        assert_eq!(found(&flow).0, finding, "{:?}", flow.route(ROUTE).languages);
        let audits = flow.route(ROUTE).audit;
        assert_eq!((audits.asked, audits.stale), (2 * (PAGES + 1), 0));
        // Nobody sees another language: nothing is stored.
        for (language, greeting) in [("de", "Hallo"), ("en", "Hello")] {
            let hit = read(&flow, 0, language).await;
            assert!(finding != Some("differs") || hit == greeting, "{language}: {hit}");
        }
        let foreign = app.seen("/p/0").iter().filter(|request| request.method != "GET").count();
        assert_eq!(foreign, 0);
    }
}
