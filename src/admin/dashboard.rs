//! The files of the dashboard, as they are: no build step, no request to another host.

use axum::response::Response;
use http::StatusCode;

use super::reasons_page;
use super::response::content;

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PAGE: &str = "text/html; charset=utf-8";

/// The files below `/dashboard/`: name, type and text.
const FILES: &[(&str, &str, &str)] = &[
    ("dashboard.css", STYLE, include_str!("dashboard/dashboard.css")),
    ("api.js", SCRIPT, include_str!("dashboard/api.js")),
    ("axis.js", SCRIPT, include_str!("dashboard/axis.js")),
    ("charts.js", SCRIPT, include_str!("dashboard/charts.js")),
    ("dashboard.js", SCRIPT, include_str!("dashboard/dashboard.js")),
    ("events.js", SCRIPT, include_str!("dashboard/events.js")),
    ("explain.js", SCRIPT, include_str!("dashboard/explain.js")),
    ("findings.js", SCRIPT, include_str!("dashboard/findings.js")),
    ("history.js", SCRIPT, include_str!("dashboard/history.js")),
    ("marks.js", SCRIPT, include_str!("dashboard/marks.js")),
    ("memory.js", SCRIPT, include_str!("dashboard/memory.js")),
    ("mode.js", SCRIPT, include_str!("dashboard/mode.js")),
    ("multiples.js", SCRIPT, include_str!("dashboard/multiples.js")),
    ("numbers.js", SCRIPT, include_str!("dashboard/numbers.js")),
    ("overview.js", SCRIPT, include_str!("dashboard/overview.js")),
    ("page.js", SCRIPT, include_str!("dashboard/page.js")),
    ("peers.js", SCRIPT, include_str!("dashboard/peers.js")),
    ("polling.js", SCRIPT, include_str!("dashboard/polling.js")),
    ("purge.js", SCRIPT, include_str!("dashboard/purge.js")),
    ("reasons.js", SCRIPT, include_str!("dashboard/reasons.js")),
    ("recent.js", SCRIPT, include_str!("dashboard/recent.js")),
    ("reload.js", SCRIPT, include_str!("dashboard/reload.js")),
    ("routes.js", SCRIPT, include_str!("dashboard/routes.js")),
    ("state.js", SCRIPT, include_str!("dashboard/state.js")),
    ("table.js", SCRIPT, include_str!("dashboard/table.js")),
    ("tags.js", SCRIPT, include_str!("dashboard/tags.js")),
    ("tail.js", SCRIPT, include_str!("dashboard/tail.js")),
    ("timeline.js", SCRIPT, include_str!("dashboard/timeline.js")),
    ("uncached.js", SCRIPT, include_str!("dashboard/uncached.js")),
];

/// The page itself.
pub(super) fn page() -> Response {
    content(StatusCode::OK, PAGE, include_str!("dashboard/index.html"))
}

/// A file of the page; `None` if there is no such file.
pub(super) fn file(name: &str) -> Option<Response> {
    match name {
        "reasons.html" => return Some(content(StatusCode::OK, PAGE, reasons_page::page())),
        "slugs.js" => return Some(content(StatusCode::OK, SCRIPT, reasons_page::slugs())),
        _ => {}
    }
    let (_, content_type, text) = FILES.iter().find(|(own, ..)| *own == name)?;
    Some(content(StatusCode::OK, content_type, *text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_that_another_one_imports_is_served() {
        let scripts = FILES.iter().filter(|(_, content_type, _)| *content_type == SCRIPT);
        for (name, _, text) in scripts {
            for import in text.split(" from './").skip(1) {
                let (imported, _) = import.split_once('\'').expect("a quoted name");
                assert!(file(imported).is_some(), "{name} imports {imported}");
            }
        }
    }

    #[test]
    fn every_link_to_a_reason_leads_to_its_section() {
        const LINK: &str = "\"dashboard/reasons.html#";
        let index = include_str!("dashboard/index.html");
        let reasons = reasons_page::page();
        let links: Vec<&str> =
            index.split(LINK).skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(!links.is_empty());
        for slug in links {
            assert!(reasons.contains(&format!(" id=\"{slug}\"")), "{slug}");
        }
        assert!(include_str!("dashboard/reasons.js").contains("dashboard/reasons.html#"));
    }
}
