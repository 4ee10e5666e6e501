//! Whether the bodies of a route depend on `Accept-Language`: pure, without a clock.
//!
//! A *page* is a key without its languages. Its bodies, and what its heads say of the language, are
//! compared within one freshness, and only while no write and no purge came in between: then a
//! difference would have been seen as such, and an equal body is no accident. A request without
//! `Accept-Language` counts where bodies differ, but is no language.
//!
//! The conclusions of a page:
//! - *Same*: two languages got the same body.
//! - *Differs*: one language got the same body before and after another one got a different one,
//!   from requests that are alike in all that a fill withholds.
//! - *Doubtful*: two languages got different bodies, and it is not known why. If the first one then
//!   gets what the second one got, the page has changed; nothing else ends a doubt.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use http::StatusCode;
use http::header::{CONTENT_LANGUAGE, CONTENT_LOCATION, HeaderMap, LOCATION};
use smallvec::SmallVec;

use crate::semantics::digest::Digester;
use crate::semantics::times::Times;
use crate::shadow::history::{Digest, StepSpan};

/// How many comparisons with equal bodies it takes to say that the body never depended on the
/// language.
pub const MIN_COMPARISONS: u64 = 20;

/// How many different languages must have been compared for that.
pub const MIN_LANGUAGES: usize = 2;

/// How often bodies must have differed between languages, and not otherwise, to say that they do.
pub const MIN_PROOFS: u64 = 3;

/// How many languages of a route are remembered. Others are compared, but not named.
pub const MAX_LANGUAGES: usize = 32;

/// How many languages of one page are remembered.
pub const MAX_PAGE_LANGUAGES: usize = 8;

/// A response, for the comparison with other languages.
#[derive(Clone, Copy, Debug)]
pub struct LanguageSample<'a> {
    /// The normal form of `Accept-Language`; empty without one.
    pub languages: &'a str,
    /// The digest of the body.
    pub digest: Digest,
    /// The digest of what the head says of the language.
    pub head: Digest,
    /// Whether an equal body says something: errors and redirects look alike in all languages.
    pub is_success: bool,
    /// Identifies what else the origin was told that is not in the key.
    pub others: u64,
    /// When it was fetched.
    pub span: StepSpan,
    /// How long it is fresh.
    pub times: Times,
}

/// The latest response of a page in one language.
#[derive(Clone, Debug)]
struct LanguageRun {
    /// Identifies the whole normal form.
    id: u64,
    /// Its first range.
    language: Box<str>,
    digest: Digest,
    head: Digest,
    others: u64,
    span: StepSpan,
    times: Times,
}

/// What is known of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageStanding {
    /// Nothing.
    #[default]
    Unknown,
    /// Its body was the same in two languages.
    Same,
    /// Its body was different, and it is not known why.
    Doubtful,
    /// Its body depends on the language.
    Differs,
}

/// The responses of a page in several languages.
#[derive(Clone, Debug, Default)]
pub struct PageHistory {
    runs: SmallVec<[LanguageRun; 1]>,
    standing: PageStanding,
    /// A doubt that what comes later cannot end.
    is_lasting: bool,
    /// Whether one language got different bodies, without a write.
    is_unstable: bool,
}

/// What a response adds to what is known of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageVerdict {
    /// What was known before, and what is now.
    pub standing: (PageStanding, PageStanding),
    /// Whether the body was the same as in other languages, if it was compared.
    pub same: Option<bool>,
    /// The languages that were compared.
    pub languages: Vec<Box<str>>,
    /// Whether it shows that the body depends on the language.
    pub is_proof: bool,
    /// For each body that is known now a language that gets it.
    pub distinct: Vec<Box<str>>,
}

/// The first language of a normal form, without region: `de` of `de-at,de,en`.
#[must_use]
pub fn primary_language(languages: &str) -> &str {
    languages.split([',', '-']).next().unwrap_or_default()
}

fn id_of(languages: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    languages.hash(&mut hasher);
    hasher.finish()
}

/// The first range of a normal form.
fn first_range(languages: &str) -> &str {
    languages.split(',').next().unwrap_or_default()
}

/// The digest of what the head of a response says of the language: where it leads, and what it says
/// itself.
#[must_use]
pub fn head_digest(status: StatusCode, headers: &HeaderMap) -> Digest {
    let mut digester = Digester::new(status);
    for name in [LOCATION, CONTENT_LOCATION, CONTENT_LANGUAGE] {
        for value in headers.get_all(&name) {
            digester.update(&(value.len() as u64).to_be_bytes());
            digester.update(value.as_bytes());
        }
        digester.update(b"\n");
    }
    digester.finish()
}

impl LanguageRun {
    const fn content(&self) -> [Digest; 2] {
        [self.digest, self.head]
    }

    fn is_same(&self, sample: &LanguageSample<'_>) -> bool {
        (self.digest, self.head) == (sample.digest, sample.head)
    }
}

impl PageHistory {
    /// What is known of the page.
    #[must_use]
    pub const fn standing(&self) -> PageStanding {
        self.standing
    }

    /// Records a response. `holds` returns whether an earlier one is still fresh and no write or
    /// purge came since.
    pub fn observe(
        &mut self,
        sample: &LanguageSample<'_>,
        holds: &dyn Fn(&StepSpan, &Times) -> bool,
    ) -> PageVerdict {
        let before = self.standing;
        self.forget(|run| holds(&run.span, &run.times));
        let language = first_range(sample.languages);
        let id = id_of(sample.languages);
        let own = self.runs.iter().position(|run| run.id == id);
        let own = own.map(|at| self.runs.remove(at));
        let is_same = self.runs.iter().all(|run| run.is_same(sample));
        let mut verdict = PageVerdict::default();
        if let Some(own) = &own {
            let is_alike = own.others == sample.others && own.span.done <= sample.span.sent;
            self.is_unstable |= is_alike && !own.is_same(sample);
        }
        if self.is_unstable && self.standing == PageStanding::Differs {
            (self.standing, self.is_lasting) = (PageStanding::Doubtful, true);
        }
        if !self.runs.is_empty() {
            let primary = primary_language(language);
            let of_others = self.runs.iter().map(|run| primary_language(&run.language));
            let named: Vec<&str> =
                of_others.filter(|other| !other.is_empty() && *other != primary).collect();
            let is_named = !primary.is_empty() && !named.is_empty() && sample.is_success;
            if !is_same {
                verdict.same = Some(false);
                verdict.is_proof =
                    !self.is_unstable && own.as_ref().is_some_and(|own| self.proves(own, sample));
                self.differ(verdict.is_proof);
            } else if is_named {
                // Once for each language in each freshness.
                verdict.same = own.is_none().then_some(true);
                verdict.languages = named.into_iter().chain([primary]).map(Into::into).collect();
                self.agree();
            } else if self.standing == PageStanding::Doubtful && !self.is_lasting {
                self.standing = PageStanding::Unknown;
            }
        }
        let language = own.map_or_else(|| language.into(), |own| own.language);
        self.remember(sample, id, language);
        if verdict.is_proof {
            verdict.distinct = self.distinct();
        }
        verdict.standing = (before, self.standing);
        verdict
    }

    fn forget(&mut self, holds: impl Fn(&LanguageRun) -> bool) {
        let known = self.runs.len();
        self.runs.retain(|run| holds(run));
        self.is_lasting |= self.standing == PageStanding::Doubtful && self.runs.len() < known;
    }

    fn agree(&mut self) {
        self.standing = match self.standing {
            PageStanding::Doubtful if self.is_lasting => PageStanding::Doubtful,
            PageStanding::Unknown | PageStanding::Same | PageStanding::Doubtful => {
                PageStanding::Same
            }
            PageStanding::Differs => PageStanding::Differs,
        };
    }

    fn differ(&mut self, is_proof: bool) {
        self.standing = match self.standing {
            _ if is_proof => PageStanding::Differs,
            PageStanding::Differs => PageStanding::Differs,
            PageStanding::Unknown | PageStanding::Same | PageStanding::Doubtful => {
                PageStanding::Doubtful
            }
        };
    }

    /// Whether another language got a different body between two equal ones of this language.
    fn proves(&self, own: &LanguageRun, sample: &LanguageSample<'_>) -> bool {
        let is_like = |run: &LanguageRun| {
            run.others == sample.others
                && !run.is_same(sample)
                && own.span.done <= run.span.sent
                && run.span.done <= sample.span.sent
        };
        own.is_same(sample) && own.others == sample.others && self.runs.iter().any(is_like)
    }

    fn remember(&mut self, sample: &LanguageSample<'_>, id: u64, language: Box<str>) {
        let LanguageSample { digest, head, others, span, times, .. } = *sample;
        if self.runs.len() >= MAX_PAGE_LANGUAGES {
            let oldest = self.runs.iter().map(|run| run.span.sent).min().unwrap_or_default();
            self.forget(|run| run.span.sent != oldest);
        }
        self.runs.push(LanguageRun { id, language, digest, head, others, span, times });
    }

    /// For each body a language that gets it: without region, unless another region of the language
    /// gets another body.
    fn distinct(&self) -> Vec<Box<str>> {
        let mut chosen: Vec<([Digest; 2], Box<str>)> = Vec::new();
        for run in self.runs.iter().filter(|run| !run.language.is_empty()) {
            let primary = primary_language(&run.language);
            let is_regional = self.runs.iter().any(|other| {
                other.content() != run.content() && primary_language(&other.language) == primary
            });
            if !chosen.iter().any(|(content, _)| *content == run.content()) {
                let name = if is_regional { &*run.language } else { primary };
                chosen.push((run.content(), name.into()));
            }
        }
        chosen.into_iter().map(|(_, name)| name).collect()
    }
}

/// What a route's languages have shown since its findings were reset.
#[derive(Clone, Debug, Default)]
pub struct LanguageFindings {
    /// Pages that are remembered and were the same in two languages.
    pub pages: u64,
    /// Pages whose body differed, without proof that it was for the language.
    pub doubtful: u64,
    /// Pages whose body depends on the language.
    pub differing: u64,
    /// Comparisons with equal bodies.
    pub comparisons: u64,
    /// How often a body was shown to depend on the language.
    pub proofs: u64,
    /// Whether a response has named `Accept-Language` in `Vary`: the route says so itself.
    pub is_said: bool,
    /// The languages that were compared and got equal bodies.
    pub compared: BTreeSet<Box<str>>,
    /// Languages that get bodies of their own.
    pub distinct: BTreeSet<Box<str>>,
    /// A normal form of `Accept-Language` for each language that was seen.
    pub seen: Vec<Box<str>>,
}

/// What is to be said of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanguageFinding {
    /// Its bodies never depended on the language.
    Never,
    /// They depend on it.
    Differs,
}

impl LanguageFinding {
    /// The word in the admin API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Differs => "differs",
        }
    }
}

impl LanguageFindings {
    /// What is to be said, if there is enough evidence.
    #[must_use]
    pub fn finding(&self) -> Option<LanguageFinding> {
        let is_counter = self.differing + self.doubtful > 0;
        let is_enough = self.comparisons >= MIN_COMPARISONS
            && self.compared.len() >= MIN_LANGUAGES
            && self.pages > 0;
        match self.is_said {
            true => None,
            false if self.differing > 0 && self.proofs >= MIN_PROOFS => {
                Some(LanguageFinding::Differs)
            }
            false => (is_enough && !is_counter).then_some(LanguageFinding::Never),
        }
    }

    /// Adds what a response has shown. Returns whether there are more languages than are
    /// remembered.
    pub fn record(&mut self, verdict: &PageVerdict) -> bool {
        let (before, after) = verdict.standing;
        if before != after {
            self.remove(before);
            if let Some(count) = self.count_mut(after) {
                *count += 1;
            }
        }
        self.comparisons += u64::from(verdict.same == Some(true));
        self.proofs += u64::from(verdict.is_proof);
        let mut is_full = false;
        for (names, new) in
            [(&mut self.compared, &verdict.languages), (&mut self.distinct, &verdict.distinct)]
        {
            for name in new {
                if !names.contains(name) {
                    is_full |= names.len() >= MAX_LANGUAGES;
                    if names.len() < MAX_LANGUAGES {
                        names.insert(name.clone());
                    }
                }
            }
        }
        is_full
    }

    /// A page with this standing is no longer remembered. What spoke against a finding stays.
    pub fn forget(&mut self, standing: PageStanding) {
        if standing == PageStanding::Same {
            self.remove(standing);
        }
    }

    /// Remembers that a language was seen. Returns whether there are more than are remembered.
    pub fn see(&mut self, languages: &str) -> bool {
        let primary = primary_language(languages);
        let is_known = self.seen.iter().any(|known| primary_language(known) == primary);
        if primary.is_empty() || is_known {
            return false;
        }
        let is_full = self.seen.len() >= MAX_LANGUAGES;
        if !is_full {
            self.seen.push(languages.into());
        }
        is_full
    }

    fn remove(&mut self, standing: PageStanding) {
        if let Some(count) = self.count_mut(standing) {
            *count = count.saturating_sub(1);
        }
    }

    const fn count_mut(&mut self, standing: PageStanding) -> Option<&mut u64> {
        match standing {
            PageStanding::Unknown => None,
            PageStanding::Same => Some(&mut self.pages),
            PageStanding::Doubtful => Some(&mut self.doubtful),
            PageStanding::Differs => Some(&mut self.differing),
        }
    }
}

#[cfg(test)]
mod tests;
