//! `reasons.md`: every reason, from the table in `outcome`.

use super::markdown::{Page, code, codes};
use crate::outcome::{Disposition, Reason, Step};

pub(super) fn page() -> String {
    let mut page = Page::new("Reasons");
    page.paragraph(
        "A reason says why a request was not answered from the cache, or why a response was not \
         stored. It appears in the `detail` of `Cache-Status`, in the access log, in the admin \
         API and in `sidecache explain`. Metrics have the label value instead. `missing field` and \
         `unkeyed header` are followed by the name of the field or header.",
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
        let (title, about) = about(step);
        page.section(title);
        page.paragraph(&about);
        let rows: Vec<_> = Reason::ALL
            .iter()
            .filter(|reason| reason.steps().contains(&step))
            .map(|reason| {
                [
                    words(*reason),
                    code(&reason.label()),
                    reason.meaning().to_owned(),
                    reason.remedy().unwrap_or("Nothing.").to_owned(),
                ]
            })
            .collect();
        page.table(["Reason", "Metric label", "Meaning", "What to do"], &rows);
    }
    page.finish()
}

fn words(reason: Reason) -> String {
    let name = if reason.has_subject() { " NAME" } else { "" };
    code(&format!("{}{name}", reason.as_str()))
}

/// The title of a step, and a paragraph about its reasons.
fn about(step: Step) -> (&'static str, String) {
    let said = |dispositions: &[Disposition]| codes(dispositions.iter().map(|said| said.as_str()));
    match step {
        Step::Bypass => (
            "The cache took no part",
            format!("`X-Cache` is {}. The origin answers.", said(&[Disposition::Bypass])),
        ),
        Step::Lookup => (
            "Nothing stored could be served",
            format!(
                "`X-Cache` is {}, or {} if the origin says that the stored response still holds.",
                said(&[Disposition::Miss]),
                said(&[Disposition::Revalidated]),
            ),
        ),
        Step::Stale => (
            "A stale response was served",
            format!(
                "`X-Cache` is {}. How long a stale response may be served is set by \
                 `stale_while_revalidate` and `stale_if_error`.",
                said(&[Disposition::Stale]),
            ),
        ),
        Step::Store => (
            "The response was not stored",
            format!(
                "`X-Cache` is {} or {}, and `Cache-Status` does not have `stored`.",
                said(&[Disposition::Miss]),
                said(&[Disposition::Revalidated]),
            ),
        ),
        Step::Body => (
            "The response was dropped after its head had been sent",
            "`Cache-Status` says `stored`, and the response is not stored. The log says so at \
             level \
             `debug`, and `sidecache_store_aborted_total` counts it by reason."
                .to_owned(),
        ),
        Step::Failure => (
            "The sidecar answered itself",
            format!(
                "`X-Cache` is {} on a route that caches, else {}. The body says what failed.",
                said(&[Disposition::Miss]),
                said(&[Disposition::Bypass]),
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_disposition_is_on_the_page() {
        let page = page();
        for reason in Reason::ALL {
            let row =
                format!("| {} | `{}` | {} |", words(*reason), reason.label(), reason.meaning());
            assert!(page.contains(&row), "{row}");
        }
        for disposition in Disposition::ALL {
            assert!(page.contains(&format!("| `{}` |", disposition.as_str())));
        }
    }
}
