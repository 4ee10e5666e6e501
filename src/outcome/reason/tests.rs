//! Tests of the reasons: each has a word, a subject and a status of its own.

use std::collections::BTreeSet;

use super::*;

#[test]
fn labels_are_snake_case_and_differ() {
    let labels: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
    assert_eq!(labels.len(), Reason::ALL.len());
    for label in &labels {
        assert!(label.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{label}");
    }
    assert_eq!(Reason::NoRoute.label(), "no_route");
    assert_eq!(Reason::StaleWhileRevalidate.label(), "stale_while_revalidate");
    assert_eq!(Reason::VaryStar.label(), "vary_star");
}

#[test]
fn reasons_are_told_in_whole_sentences() {
    for reason in Reason::ALL {
        let texts = [Some(reason.meaning()), reason.remedy()];
        for text in texts.into_iter().flatten() {
            assert!(text.starts_with(|c: char| c.is_ascii_uppercase()), "{reason:?}: {text}");
            assert!(text.ends_with('.') && !text.contains("  "), "{reason:?}: {text}");
        }
    }
}

#[test]
fn discriminants_count_the_table() {
    for (at, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, at);
    }
}

fn statuses() -> Vec<(Reason, u16)> {
    Reason::ALL.iter().map(|reason| (*reason, reason.failure_status().as_u16())).collect()
}

#[test]
fn every_reason_has_its_status_of_failure() {
    let others: Vec<_> = statuses().into_iter().filter(|(_, status)| *status != 500).collect();
    assert_eq!(
        others,
        [
            (Reason::PurgeRefused, 403),
            (Reason::WebhookRefused, 401),
            (Reason::CacheUnavailable, 503),
            (Reason::OnlyIfCached, 504),
            (Reason::ClientGone, 499),
            (Reason::BadRequest, 400),
            (Reason::HeadTooLarge, 431),
            (Reason::NotHttp, 400),
            (Reason::UpstreamUnreachable, 502),
            (Reason::UpstreamTimeout, 504),
            (Reason::UpstreamProtocolError, 502),
            (Reason::UpstreamError, 502),
            (Reason::UpstreamBusy, 503),
            (Reason::TooManyTunnels, 503),
            (Reason::WriteRefused, 503),
        ]
    );
}

#[test]
fn a_failure_has_a_status_of_its_own() {
    for (reason, status) in statuses() {
        if reason.steps().contains(&Step::Failure) {
            assert_ne!(status, 500, "{reason:?}");
        }
    }
}
