//! How many variants real clients' headers make of one resource. The values of browsers are those
//! of MDN's list of default `Accept` values and of what browsers sent in 2025; those of libraries
//! are their defaults. Run with `--no-capture` to see the figures, which the documentation quotes.

use std::collections::BTreeMap;

use crate::support::flow::Flow;
use crate::support::{Origin, Response};

/// What sends a value, for what, and the value; the empty one stands for no header at all.
type Value = (&'static str, &'static str, &'static str);

const CHROME_PAGE: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,\
    image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7";
const PLAIN_PAGE: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const CHROME_IMAGE: &str = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8";

/// `Accept`.
const ACCEPT: [Value; 43] = [
    ("page", "Chrome 131", CHROME_PAGE),
    ("page", "Edge 131", CHROME_PAGE),
    ("page", "Firefox 132", PLAIN_PAGE),
    ("page", "Safari 18", PLAIN_PAGE),
    (
        "page",
        "Firefox 128 ESR",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/png,\
            image/svg+xml,*/*;q=0.8",
    ),
    (
        "page",
        "Firefox 115 ESR",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    ),
    (
        "page",
        "Chrome 80",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,image/apng,*/*;q=0.8,\
            application/signed-exchange;v=b3;q=0.9",
    ),
    (
        "page",
        "Googlebot",
        "text/html,application/xhtml+xml,application/signed-exchange;v=b3,application/xml;q=0.9,\
            */*;q=0.8",
    ),
    ("page", "Bingbot", "*/*"),
    (
        "page",
        "Lynx",
        "text/html, text/plain, text/sgml, text/css, application/xhtml+xml, */*;q=0.01",
    ),
    ("page", "curl 8", "*/*"),
    ("page", "wget 1.24", "*/*"),
    ("page", "Java HttpURLConnection", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"),
    ("page", "htmx 2", "*/*"),
    ("page", "jQuery 3 html", "text/html, */*; q=0.01"),
    ("page", "Turbo 8", "text/vnd.turbo-stream.html, text/html, application/xhtml+xml"),
    ("image", "Chrome 131", CHROME_IMAGE),
    ("image", "Edge 131", CHROME_IMAGE),
    (
        "image",
        "Firefox 128",
        "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
    ),
    ("image", "Firefox 115 ESR", "image/avif,image/webp,*/*"),
    (
        "image",
        "Safari 18",
        "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,\
            image/svg+xml,image/*;q=0.8,*/*;q=0.5",
    ),
    (
        "image",
        "Safari 16",
        "image/webp,image/avif,video/*;q=0.8,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
    ),
    (
        "image",
        "Safari 14",
        "image/webp,image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5",
    ),
    ("image", "curl 8", "*/*"),
    ("image", "okhttp 4", ""),
    ("style", "Chrome 131", "text/css,*/*;q=0.1"),
    ("style", "Firefox 132", "text/css,*/*;q=0.1"),
    ("style", "Safari 18", "text/css,*/*;q=0.1"),
    ("style", "wget 1.24", "*/*"),
    ("script", "Chrome 131", "*/*"),
    ("script", "Firefox 132", "*/*"),
    ("script", "Safari 18", "*/*"),
    (
        "script",
        "jQuery 3",
        "text/javascript, application/javascript, application/ecmascript, \
            application/x-ecmascript, */*; q=0.01",
    ),
    ("api", "fetch", "*/*"),
    ("api", "axios 1", "application/json, text/plain, */*"),
    ("api", "Angular 18", "application/json, text/plain, */*"),
    ("api", "jQuery 3 json", "application/json, text/javascript, */*; q=0.01"),
    ("api", "fetch, said", "application/json"),
    ("api", "python-requests 2", "*/*"),
    ("api", "httpx 0.27", "*/*"),
    ("api", "okhttp 4", ""),
    ("api", "Go net/http", ""),
    (
        "api",
        "RestSharp 112",
        "application/json, text/json, text/x-json, text/javascript, application/xml, text/xml",
    ),
];

/// `Accept-Encoding`.
const CODINGS: [Value; 18] = [
    ("browser", "Chrome 131", "gzip, deflate, br, zstd"),
    ("browser", "Chrome 131, plain HTTP", "gzip, deflate"),
    ("browser", "Edge 131", "gzip, deflate, br, zstd"),
    ("browser", "Firefox 132", "gzip, deflate, br, zstd"),
    ("browser", "Firefox 115 ESR", "gzip, deflate, br"),
    ("browser", "Safari 18", "gzip, deflate, br"),
    ("browser", "Chrome, media", "identity;q=1, *;q=0"),
    ("library", "Googlebot", "gzip, deflate, br"),
    ("library", "curl 8", ""),
    ("library", "curl 8 --compressed", "deflate, gzip, br, zstd"),
    ("library", "axios 1, Node.js", "gzip, compress, deflate, br"),
    ("library", "undici fetch", "br, gzip, deflate"),
    ("library", "okhttp 4", "gzip"),
    ("library", "Go net/http", "gzip"),
    ("library", "python-requests 2", "gzip, deflate"),
    ("library", "python-requests 2, zstandard", "gzip, deflate, br, zstd"),
    ("library", "Ruby net/http", "gzip;q=1.0,deflate;q=0.6,identity;q=0.3"),
    ("library", "wget 1.24", "identity"),
];

/// `Accept-Language`.
const LANGUAGES: [Value; 36] = [
    ("en", "Chrome", "en-US,en;q=0.9"),
    ("en", "Firefox", "en-US,en;q=0.5"),
    ("en", "Safari", "en-US,en;q=0.9"),
    ("en", "Chrome, Britain", "en-GB,en-US;q=0.9,en;q=0.8"),
    ("en", "Firefox, Britain", "en-GB,en;q=0.5"),
    ("en", "Safari, Britain", "en-GB,en;q=0.9"),
    ("en", "Safari, iPhone before iOS 14", "en-us"),
    ("en", "Edge", "en-US,en;q=0.9"),
    ("en", "Edge, Britain", "en-GB,en;q=0.9,en-US;q=0.8"),
    ("en", "Chrome, India", "en-IN,en-GB;q=0.9,en-US;q=0.8,en;q=0.7,hi;q=0.6"),
    ("de", "Chrome", "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7"),
    ("de", "Chrome, set by hand", "de,en-US;q=0.9,en;q=0.8"),
    ("de", "Firefox", "de,en-US;q=0.7,en;q=0.3"),
    ("de", "Safari", "de-DE,de;q=0.9"),
    ("de", "Edge", "de,de-DE;q=0.9,en;q=0.8,en-GB;q=0.7,en-US;q=0.6"),
    ("de", "Chrome, Austria", "de-AT,de;q=0.9,en-US;q=0.8,en;q=0.7"),
    ("de", "Safari, Switzerland", "de-CH,de;q=0.9"),
    ("fr", "Chrome", "fr-FR,fr;q=0.9,en-US;q=0.8,en;q=0.7"),
    ("fr", "Firefox", "fr,fr-FR;q=0.8,en-US;q=0.5,en;q=0.3"),
    ("fr", "Safari", "fr-FR,fr;q=0.9"),
    ("fr", "Chrome, Canada", "fr-CA,fr;q=0.9,en-CA;q=0.8,en;q=0.7"),
    ("es", "Chrome", "es-ES,es;q=0.9,en;q=0.8"),
    ("es", "Firefox", "es-ES,es;q=0.8,en-US;q=0.5,en;q=0.3"),
    ("es", "Safari, Mexico", "es-MX,es;q=0.9"),
    ("es", "Chrome, Latin America", "es-419,es;q=0.9,en;q=0.8"),
    ("pt", "Chrome, Brazil", "pt-BR,pt;q=0.9,en-US;q=0.8,en;q=0.7"),
    ("pt", "Firefox, Brazil", "pt-BR,pt;q=0.8,en-US;q=0.5,en;q=0.3"),
    ("ja", "Chrome", "ja,en-US;q=0.9,en;q=0.8"),
    ("ja", "Firefox", "ja,en-US;q=0.7,en;q=0.3"),
    ("ja", "Safari", "ja-JP"),
    ("zh", "Chrome", "zh-CN,zh;q=0.9"),
    ("zh", "Firefox", "zh-CN,zh;q=0.8,zh-TW;q=0.7,zh-HK;q=0.5,en-US;q=0.3,en;q=0.2"),
    ("zh", "Chrome, Taiwan", "zh-TW,zh;q=0.9,en-US;q=0.8,en;q=0.7"),
    ("none", "curl 8", ""),
    ("none", "okhttp 4", ""),
    ("none", "undici fetch", "*"),
];

/// Of one kind of value: how many different ones, and how many variants they make.
#[derive(Clone, Copy, Debug)]
struct Figures {
    values: usize,
    variants: usize,
}

/// Sends each value, and counts how often the origin is asked for a whole response.
async fn count(
    title: &str,
    header: &str,
    values: &[Value],
    rules: &str,
    vary: bool,
) -> BTreeMap<String, Figures> {
    let name = header.to_owned();
    let origin = Origin::start(move |_| {
        let response = Response::ok("data");
        if vary { response.header("vary", &name) } else { response }
    });
    let rules =
        format!("[[routes]]\npath = \"/{{*rest}}\"\nttl = \"1h\"\nscope = \"public\"\n{rules}\n");
    let flow = Flow::start(origin.address, &rules).await;
    let mut figures: BTreeMap<String, Figures> = BTreeMap::new();
    println!("{title}");
    // Each kind has a resource of its own; and all values together have one.
    for kind in values.iter().map(|(kind, ..)| *kind).chain(["(all)"]) {
        if figures.contains_key(kind) {
            continue;
        }
        let of_kind = values.iter().filter(|(of, ..)| *of == kind || kind == "(all)");
        let of_kind: Vec<&str> = of_kind.map(|(_, _, value)| *value).collect();
        let path = format!("/{kind}");
        for value in &of_kind {
            let headers = [(header, *value)];
            let headers = if value.is_empty() { &[][..] } else { &headers };
            let reply = flow.get(&path, headers).await;
            assert!(matches!(reply.cache(), "MISS" | "HIT"), "{value}: {}", reply.cache_status());
            assert_eq!(flow.get(&path, headers).await.cache(), "HIT", "{value}");
        }
        let mut different = of_kind.clone();
        different.sort_unstable();
        different.dedup();
        let (clients, values) = (of_kind.len(), different.len());
        let variants = origin.count("GET", &path);
        println!("  {kind:8} {clients:3} clients, {values:3} values, {variants:3} variants");
        assert!(variants <= values, "{title} {kind}: more variants than values");
        figures.insert(kind.to_owned(), Figures { values, variants });
    }
    figures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_values_of_accept_make_few_variants() {
    let said = count("Accept, with Vary", "accept", &ACCEPT, "", true).await;
    let unsaid = count("Accept, without Vary", "accept", &ACCEPT, "", false).await;
    for figures in [&said, &unsaid] {
        // Apps choose by what they can make: a page, data, and the formats of an image. No browser
        // family has variants of its own.
        assert!(figures["style"].variants <= 2, "{figures:?}");
        assert!(figures["script"].variants <= 2, "{figures:?}");
        assert!(figures["page"].variants <= 6, "{figures:?}");
        assert!(figures["image"].variants <= 5, "{figures:?}");
        assert!(figures["api"].variants <= 5, "{figures:?}");
        assert!(figures["(all)"].variants <= 14, "{figures:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_values_of_accept_encoding_make_few_variants() {
    let said = count("Accept-Encoding, with Vary", "accept-encoding", &CODINGS, "", true).await;
    count("Accept-Encoding, without Vary", "accept-encoding", &CODINGS, "", false).await;
    assert!(said["(all)"].variants <= 9, "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_values_of_accept_language_make_a_variant_each() {
    let said = count("Accept-Language, with Vary", "accept-language", &LANGUAGES, "", true).await;
    let unsaid =
        count("Accept-Language, without Vary", "accept-language", &LANGUAGES, "", false).await;
    for figures in [&said, &unsaid] {
        // Weights do not count, the order does.
        assert!(figures["(all)"].variants < figures["(all)"].values, "{figures:?}");
        assert!(figures["de"].variants > 1, "no language is guessed: {figures:?}");
    }
}

/// The figures for a route that names its languages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_names_its_languages_has_a_variant_for_each() {
    for (languages, most) in
        [("\"en\"", 2), ("\"en\", \"de\"", 3), ("\"en\", \"de\", \"fr\", \"ja\"", 5)]
    {
        let rules = format!("languages = [{languages}]");
        let title = format!("Accept-Language, {rules}");
        let figures = count(&title, "accept-language", &LANGUAGES, &rules, false).await;
        assert!(figures["(all)"].variants <= most, "{title}: {figures:?}");
        assert!(figures["(all)"].variants > 1 || most == 2, "{title}: {figures:?}");
        assert_eq!(figures["en"].variants, 1, "{title}: {figures:?}");
    }
}
