//! `fronts.md`: what is known of the headers of each front.

use super::markdown::{Page, codes, link};
use crate::policy::fronts::{FrontClass, TABLES};

/// The page.
pub(super) fn page() -> String {
    let mut page = Page::new("Headers of fronts");
    page.paragraph(
        "Load balancers, content delivery networks and platforms add headers to what they forward. \
         A route knows none of them, so each makes the request a `BYPASS` (`unkeyed header`). Name \
         what stands in front of the sidecar at the top of `proxy.toml`, and its addresses in \
         `[listen]`:",
    );
    page.code(
        "toml",
        "fronts = [\"cloudflare\"]\n\n[listen]\ntrusted_proxies = [\"173.245.48.0/20\"]",
    );
    page.paragraph("Each header has one class, whichever front adds it:");
    let rows: Vec<_> = FrontClass::ALL
        .iter()
        .map(|class| [class.as_str().to_owned(), meaning(*class).to_owned()])
        .collect();
    page.table(["Class", "What becomes of it on a route"], &rows);
    page.paragraph(
        "A request that passes keeps all of them. A field or `[credential]` may read any of them, \
         but for an address: use a field `{ client = \"address\" }`. What is not listed here stays \
         unknown. `sidecache explain` says of an unknown header which front adds it, and the \
         dashboard suggests `fronts` where two headers give a front away.",
    );
    for table in TABLES {
        page.section(table.front.as_str());
        let rows: Vec<_> = FrontClass::ALL
            .iter()
            .filter_map(|class| {
                let of_class = table.headers.iter().filter(|header| header.class == *class);
                let names: Vec<&str> = of_class.map(|header| header.name).collect();
                (!names.is_empty()).then(|| [class.as_str().to_owned(), codes(names)])
            })
            .collect();
        page.table(["Class", "Headers"], &rows);
        let sources: Vec<_> = table.sources.iter().map(|source| [link(source)]).collect();
        page.table(["Described at"], &sources);
    }
    page.finish()
}

const fn meaning(class: FrontClass) -> &'static str {
    match class {
        FrontClass::Identity => {
            "It says who asks. The request is a `BYPASS`, unless `[credential] headers` names it \
             or a field of the key reads it. `drop_headers` and `pass_headers` may not name it, \
             and `unknown_headers` does not count for it. `*` stands for any text."
        }
        FrontClass::Address => {
            "The client's address: withheld on fills, like `X-Forwarded-For`. A response that \
             varies on it is not stored."
        }
        FrontClass::Request => {
            "The request as the client made it: its scheme, host or path, and what marks the \
             front. From a trusted proxy it is in the key and sent, like `X-Forwarded-Proto`; from \
             others it is unknown."
        }
        FrontClass::Location => {
            "Where the client is: withheld on fills, so that the origin answers as it does for a \
             client from nowhere, until a field reads it or the origin names it in `Vary`. Then it \
             is in the key."
        }
        FrontClass::Noise => {
            "Ids, times and counters: withheld on fills. A response that varies on it is not \
             stored."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_header_is_on_the_page() {
        let page = page();
        for table in TABLES {
            for header in table.headers {
                assert!(page.contains(&format!("`{}`", header.name)), "{}", header.name);
            }
        }
    }
}
