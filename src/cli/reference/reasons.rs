//! `reasons.md`: every reason, from the table in `outcome`.

use super::markdown::{Page, code, codes};
use crate::outcome::{ABOUT_REASONS, Disposition, Reason, Step};

pub(super) fn page() -> String {
    let mut page = Page::new("Reasons");
    page.paragraph(ABOUT_REASONS);
    page.paragraph(
        "The dashboard has the same page: each reason that it shows is a link to its section.",
    );
    page.section("Dispositions");
    page.paragraph("`X-Cache` says in one word how a response was made.");
    let rows: Vec<_> = Disposition::ALL
        .into_iter()
        .map(|disposition| {
            let meaning = disposition.meaning().to_owned();
            [code(disposition.as_str()), code(disposition.label()), meaning]
        })
        .collect();
    page.table(["`X-Cache`", "Metric label", "Meaning"], &rows);
    for step in Step::ALL {
        page.section(step.title());
        page.paragraph(&step.about());
        let reasons = Reason::ALL.iter().filter(|reason| reason.steps().contains(&step));
        let rows: Vec<_> = reasons.map(|reason| row(*reason)).collect();
        page.table(["Reason", "Metric label", "Meaning", "What to do", "Counted in"], &rows);
    }
    page.finish()
}

fn row(reason: Reason) -> [String; 5] {
    let counters = reason.counters();
    [
        code(&reason.heading()),
        code(&reason.label()),
        reason.meaning().to_owned(),
        reason.remedy().unwrap_or("Nothing.").to_owned(),
        codes(counters.iter().map(|counter| counter.metric)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_disposition_is_on_the_page() {
        let page = page();
        for reason in Reason::ALL {
            let row =
                format!("| `{}` | `{}` | {} |", reason.heading(), reason.label(), reason.meaning());
            assert!(page.contains(&row), "{row}");
        }
        for disposition in Disposition::ALL {
            assert!(page.contains(&format!("| `{}` |", disposition.as_str())));
        }
    }
}
