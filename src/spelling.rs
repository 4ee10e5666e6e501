//! Finds what a misspelt word was meant to be. A leaf: it knows no list of words.

/// The known word that is closest to an unknown one, if any is close.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let distance = |candidate: &str| strsim::osa_distance(&lower, candidate);
    let close = known.iter().map(|&candidate| (distance(candidate), candidate)).min()?;
    (close.0 <= 2.max(word.chars().count() / 3) && close.0 < close.1.chars().count())
        .then_some(close.1)
}
