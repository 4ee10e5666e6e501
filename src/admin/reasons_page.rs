//! The page that each reason on the dashboard links to, and the module with the links: both are
//! made from `Reason::ALL`, so that no reason lacks its section.
//!
//! The text is that of the manual's page. It comes from this program alone, and is escaped all the
//! same.

use std::fmt::Write as _;

use crate::outcome::{ABOUT_REASONS, Disposition, Reason, Step};

/// The page around the sections; the dashboard's other files lie beside it.
const FRAME: &str = include_str!("dashboard/reasons.html");
/// Where the sections go.
const PLACE: &str = "<!-- reasons -->\n";

/// The page.
pub(super) fn page() -> String {
    FRAME.replace(PLACE, &sections())
}

/// A module with the anchor of each reason, by its words.
pub(super) fn slugs() -> String {
    let pairs = Reason::ALL.iter().map(|reason| {
        let (words, slug) = (reason.as_str(), reason.slug());
        // JSON without `<` is JavaScript.
        serde_json::json!([words, slug]).to_string().replace('<', "\\u003c")
    });
    let pairs: Vec<String> = pairs.collect();
    format!(
        "// The anchors of the page of reasons, by the reasons' words. Made from the sidecar's own \
         table.\nexport const SLUGS = new Map([\n  {}\n])\n",
        pairs.join(",\n  ")
    )
}

fn sections() -> String {
    let mut html = String::with_capacity(48 * 1024);
    let _ = writeln!(html, "<section class=\"card\" aria-labelledby=\"h-about\">");
    let _ =
        writeln!(html, "<h2 id=\"h-about\">What a reason is</h2>\n<p>{}</p>", prose(ABOUT_REASONS));
    let _ = writeln!(html, "<dl class=\"facts\">");
    for disposition in Disposition::ALL {
        let (word, meaning) = (disposition.as_str(), prose(disposition.meaning()));
        let _ = writeln!(html, "<dt><code>{word}</code></dt><dd>{meaning}</dd>");
    }
    let _ = writeln!(html, "</dl>\n<nav aria-label=\"All reasons\">\n<ul class=\"contents\">");
    for reason in Reason::ALL {
        let (slug, words) = (reason.slug(), escape(reason.as_str()));
        let _ = writeln!(html, "<li><a href=\"#{slug}\">{words}</a></li>");
    }
    let _ = writeln!(html, "</ul>\n</nav>\n</section>");
    for step in Step::ALL {
        add_step(&mut html, step);
    }
    html
}

/// The reasons that are given at this step first.
fn add_step(html: &mut String, step: Step) {
    let id = format!("step-{step:?}").to_lowercase();
    let _ = writeln!(html, "<section class=\"card\" aria-labelledby=\"{id}\">");
    let (title, about) = (escape(step.title()), prose(&step.about()));
    let _ = writeln!(html, "<h2 id=\"{id}\">{title}</h2>\n<p class=\"quiet\">{about}</p>");
    for reason in Reason::ALL.iter().filter(|reason| reason.steps().first() == Some(&step)) {
        add_reason(html, *reason);
    }
    let _ = writeln!(html, "</section>");
}

fn add_reason(html: &mut String, reason: Reason) {
    let slug = reason.slug();
    let _ = writeln!(html, "<section class=\"why\" id=\"{slug}\" aria-labelledby=\"h-{slug}\">");
    let _ = writeln!(html, "<h3 id=\"h-{slug}\">{}</h3>", escape(&reason.heading()));
    let _ = writeln!(html, "<dl class=\"facts\">");
    let mut fact = |name: &str, text: &str| {
        let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", prose(text));
    };
    fact("What it means", reason.meaning());
    fact("What to do", reason.remedy().unwrap_or("Nothing."));
    let counters = reason
        .counters()
        .into_iter()
        .map(|counter| format!("`{}{{reason=\"{}\"}}`", counter.metric, counter.label));
    fact("Counted in", &counters.collect::<Vec<_>>().join(", "));
    for also in reason.steps().iter().skip(1) {
        fact("Also where", &format!("{}. {}", also.title(), also.about()));
    }
    let _ = writeln!(html, "</dl>\n</section>");
}

/// Text with its code spans.
fn prose(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.fold(String::with_capacity(2 * text.len()), |mut html, (at, part)| {
        let part = escape(part);
        let _ =
            if at % 2 == 1 { write!(html, "<code>{part}</code>") } else { write!(html, "{part}") };
        html
    })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_section_with_its_text() {
        let page = page();
        assert!(!page.contains(PLACE));
        for reason in Reason::ALL {
            let slug = reason.slug();
            let begin = page.find(&format!(" id=\"{slug}\"")).expect("a section");
            let section = &page[begin..begin + page[begin..].find("</section>").expect("its end")];
            for text in [reason.meaning(), reason.remedy().unwrap_or("Nothing.")] {
                assert!(section.contains(&prose(text)), "{slug}: {section}");
            }
            assert!(section.contains("_total{reason=&quot;"), "{slug}: {section}");
            assert!(page.contains(&format!("<a href=\"#{slug}\">")), "{slug}");
            assert_eq!(page.matches(&format!(" id=\"{slug}\"")).count(), 1, "{slug}");
        }
    }

    #[test]
    fn ids_differ() {
        let page = page();
        let ids: Vec<&str> =
            page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let all: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(all.len(), ids.len());
    }

    #[test]
    fn it_asks_for_nothing_but_the_style_beside_it() {
        let page = page();
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains("<script") && !page.contains("://"));
        assert!(page.contains("href=\"dashboard.css\"") && page.contains("href=\"../\""));
        assert!(!page.contains("style=\""));
    }

    #[test]
    fn the_module_has_each_reason() {
        let module = slugs();
        assert!(module.contains("[\"unkeyed header\",\"unkeyed-header\"]"), "{module}");
        assert_eq!(module.matches("\n  [").count(), Reason::ALL.len());
    }

    #[test]
    fn text_is_escaped_and_code_is_marked() {
        assert_eq!(prose("a `<b> & \"c\"` d"), "a <code>&lt;b&gt; &amp; &quot;c&quot;</code> d");
    }
}
