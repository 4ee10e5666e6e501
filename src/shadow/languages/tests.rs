//! What a page's responses in several languages show, and what they must not.

use std::cell::Cell;
use std::time::Duration;

use super::*;
use crate::clock::Wall;

/// A page, and the route that counts it.
#[derive(Default)]
struct Scene {
    page: PageHistory,
    findings: LanguageFindings,
    steps: u64,
    /// Before this step nothing holds: there was a write, or the freshness has ended.
    calm_since: Cell<u64>,
}

impl Scene {
    /// A response with this body in these languages.
    fn see(&mut self, languages: &str, body: u8) -> PageVerdict {
        self.see_with(languages, body, 0)
    }

    /// The same for a request that differs in what a fill would withhold.
    fn see_with(&mut self, languages: &str, body: u8, others: u64) -> PageVerdict {
        let span = StepSpan { sent: self.steps + 1, done: self.steps + 2, purges: 0 };
        self.steps += 2;
        self.see_in(languages, body, others, span)
    }

    fn see_in(&mut self, languages: &str, body: u8, others: u64, span: StepSpan) -> PageVerdict {
        let times = Times {
            received: Wall(0),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_mins(1),
        };
        let sample = LanguageSample {
            languages,
            digest: [body; 16],
            head: Digest::default(),
            is_success: true,
            others,
            span,
            times,
        };
        let since = self.calm_since.get();
        let verdict = self.page.observe(&sample, &|span, _| span.sent > since);
        self.findings.record(&verdict);
        verdict
    }

    /// A write, or the end of the freshness.
    fn disturb(&self) {
        self.calm_since.set(self.steps);
    }

    fn counts(&self) -> (u64, u64, u64) {
        (self.findings.pages, self.findings.doubtful, self.findings.differing)
    }
}

#[test]
fn equal_bodies_are_enough_once_they_are_many() {
    let mut scene = Scene::default();
    for round in 0..MIN_COMPARISONS {
        assert_eq!(scene.findings.finding(), None, "{round}");
        assert_eq!(scene.see("de-at,de", 1).same, None, "there is nothing to compare");
        assert_eq!(scene.see("en-us,en", 1).same, Some(true));
        assert_eq!(scene.see("en-us,en", 1).same, None, "once in one freshness");
        scene.disturb();
    }
    assert_eq!(scene.findings.finding(), Some(LanguageFinding::Never));
    assert_eq!(scene.counts(), (1, 0, 0));
    assert_eq!(scene.findings.compared, ["de", "en"].map(Into::into).into());
}

#[test]
fn regions_and_requests_without_a_language_are_no_other_language() {
    let mut scene = Scene::default();
    for languages in ["en-us,en", "en-gb,en", "en", ""] {
        assert_eq!(scene.see(languages, 1).same, None, "{languages}");
    }
    assert_eq!(scene.counts(), (0, 0, 0));
    // Where they differ they count: without the header everybody would get the default.
    assert_eq!(scene.see("", 2).same, Some(false));
    assert_eq!(scene.counts(), (0, 1, 0));
    let mut scene = Scene::default();
    scene.see("en-us,en", 1);
    assert_eq!(scene.see("en-gb,en", 2).same, Some(false));
}

#[test]
fn one_different_body_withdraws_the_finding_at_once_and_for_good() {
    let mut scene = Scene::default();
    for _ in 0..MIN_COMPARISONS {
        scene.see("de", 1);
        scene.see("en", 1);
        scene.disturb();
    }
    assert_eq!(scene.findings.finding(), Some(LanguageFinding::Never));
    scene.see("de", 1);
    scene.see("fr", 2);
    assert_eq!(scene.findings.finding(), None);
    // What comes in another freshness cannot explain it.
    scene.disturb();
    for _ in 0..MIN_COMPARISONS {
        scene.see("de", 3);
        scene.see("fr", 3);
        scene.disturb();
    }
    assert_eq!((scene.findings.finding(), scene.counts()), (None, (0, 1, 0)));
}

#[test]
fn a_page_that_has_changed_is_no_evidence() {
    let mut scene = Scene::default();
    scene.see("de", 1);
    scene.see("en", 2);
    assert_eq!(scene.counts(), (0, 1, 0));
    scene.see("de", 2);
    assert_eq!(scene.counts(), (1, 0, 0), "both have the new body");
    // Across a write, or the end of the freshness, nothing is compared.
    scene.disturb();
    assert_eq!(scene.see("en", 3).same, None);
    scene.disturb();
    assert_eq!(scene.see("de", 3).same, None);
}

#[test]
fn a_body_that_comes_back_in_its_language_depends_on_it() {
    let mut scene = Scene::default();
    for round in 1..=MIN_PROOFS {
        assert_eq!(scene.findings.finding(), None, "{round}");
        scene.see("de-de,de", 1);
        scene.see("en-us,en", 2);
        assert!(scene.see("de-de,de", 1).is_proof);
        scene.disturb();
    }
    assert_eq!(scene.findings.finding(), Some(LanguageFinding::Differs));
    assert_eq!(scene.counts(), (0, 0, 1));
    assert_eq!(scene.findings.distinct, ["de", "en"].map(Into::into).into());
    // Two regions of one language are told apart.
    let mut scene = Scene::default();
    for (languages, body) in [("pt-br,pt", 1), ("pt-pt,pt", 2), ("fr", 2), ("pt-br,pt", 1)] {
        scene.see(languages, body);
    }
    assert_eq!(scene.findings.distinct, ["pt-br", "pt-pt"].map(Into::into).into());
}

#[test]
fn what_a_fill_would_withhold_is_not_put_down_to_the_language() {
    let mut scene = Scene::default();
    for (languages, body, others) in [("de", 1, 1), ("en", 2, 2), ("de", 1, 1)] {
        assert!(!scene.see_with(languages, body, others).is_proof);
    }
    assert_eq!(scene.counts(), (0, 1, 0), "it may be the language nevertheless");
    // An equal body is evidence all the more.
    let mut scene = Scene::default();
    scene.see_with("de", 1, 1);
    assert_eq!(scene.see_with("en", 1, 2).same, Some(true));
}

#[test]
fn responses_that_overlapped_prove_nothing() {
    let mut scene = Scene::default();
    scene.see_in("de", 1, 0, StepSpan { sent: 1, done: 4, purges: 0 });
    scene.see_in("en", 2, 0, StepSpan { sent: 2, done: 5, purges: 0 });
    let last = scene.see_in("de", 1, 0, StepSpan { sent: 6, done: 7, purges: 0 });
    assert!(!last.is_proof);
    assert_eq!(scene.counts(), (0, 1, 0));
}

#[test]
fn a_body_that_differs_by_itself_is_not_put_down_to_the_language() {
    let mut scene = Scene::default();
    for (languages, body) in [("de", 1), ("en", 2), ("de", 1)] {
        scene.see(languages, body);
    }
    assert_eq!(scene.counts(), (0, 0, 1));
    scene.see("en", 3);
    assert_eq!(scene.counts(), (0, 1, 0), "English alone has two bodies");
    for body in [1, 2, 3, 1, 2, 3] {
        assert!(!scene.see("de", body).is_proof && !scene.see("en", 4 + body).is_proof);
    }
    assert_eq!(scene.findings.finding(), None);
}

#[test]
fn languages_are_bounded() {
    let mut scene = Scene::default();
    let name = |at: usize| {
        let letter = |at: usize| char::from(b'a' + u8::try_from(at % 26).unwrap());
        format!("{}{}", letter(at / 26), letter(at))
    };
    for at in 0..100 {
        scene.see(&name(at), 1);
        let is_full = scene.findings.see(&format!("{},xx", name(at)));
        assert_eq!(is_full, at >= MAX_LANGUAGES, "{at}");
    }
    assert_eq!(scene.page.runs.len(), MAX_PAGE_LANGUAGES);
    assert_eq!(scene.findings.compared.len(), MAX_LANGUAGES);
    assert_eq!(scene.findings.seen.len(), MAX_LANGUAGES);
    // One that is not remembered counts against it all the same.
    scene.see("zz", 2);
    assert_eq!(scene.findings.finding(), None);
}

#[test]
fn a_route_that_names_the_header_itself_gets_no_finding() {
    let mut scene = Scene::default();
    for _ in 0..MIN_COMPARISONS {
        scene.see("de", 1);
        scene.see("en", 1);
        scene.disturb();
    }
    scene.findings.is_said = true;
    assert_eq!(scene.findings.finding(), None);
}

#[test]
fn a_page_that_is_forgotten_takes_no_doubt_with_it() {
    let mut scene = Scene::default();
    scene.see("de", 1);
    scene.see("en", 1);
    scene.findings.forget(scene.page.standing());
    assert_eq!(scene.counts(), (0, 0, 0));
    let mut scene = Scene::default();
    scene.see("de", 1);
    scene.see("en", 2);
    scene.findings.forget(scene.page.standing());
    assert_eq!(scene.counts(), (0, 1, 0));
}
